"""The notebook of the documentation runs, in a folder of its own and without a home folder, and shows what it holds."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture
def module():
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs" / "notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A user without a home folder; what Vouch keeps for itself goes to a folder of the test."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "PREFECT_HOME", "TMPDIR"):
        (tmp_path / "own" / name).mkdir(parents=True)
        monkeypatch.setenv(name, str(tmp_path / "own" / name))
    for name in ("VOUCH_LOG", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def printed(notebook):
    """What each cell printed, without progress; it may come in any number of pieces."""
    cells = [cell.get("outputs", ()) for cell in notebook.cells]
    texts = ["".join(one["text"] for one in outputs if one.get("name") == "stdout") for outputs in cells]
    return [text for text in texts if text]


@pytest.mark.slow
def test_every_cell_runs(module, homeless, tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    before = NOTEBOOK.read_bytes()
    shown = printed(module.without_noise(module.execute(NOTEBOOK, folder)))
    assert NOTEBOOK.read_bytes() == before
    assert not homeless.exists()
    assert len(shown) == len(printed(nbformat.read(NOTEBOOK, as_version=4)))
    assert shown[0].startswith("48 images, 19")
    written = json.loads((folder / "demo/workspace/exports/for-rtdetr/annotations.json").read_text())
    assert len(written["images"]) == 48
    assert not list((tmp_path / "own/XDG_DATA_HOME").rglob("kernel.json"))


def test_a_cell_that_fails_fails_the_run(module, homeless, tmp_path):
    broken = tmp_path / "broken.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("import vouch_labels as v\nv.Campaign('none.yaml')")]), broken)
    with pytest.raises(CellExecutionError, match=r"none\.yaml: no such file; `vouch init` writes a campaign"):
        module.execute(broken, tmp_path)


def test_the_notebook_is_small_and_shows_what_it_does():
    assert NOTEBOOK.stat().st_size < 300_000
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.outputs for cell in code)
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds
    assert "/tmp" not in NOTEBOOK.read_text(encoding="utf-8")
    assert any("image/jpeg" in output.get("data", {}) for cell in code for output in cell.outputs)
