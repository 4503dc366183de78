"""What the pages say is so: commands, links, notebook, words."""

import importlib.util
import json
import re
import runpy
import shlex
from pathlib import Path

import nbformat
import pytest
import typer
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from vouch_labels.flows.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^ *\$ (?:\.venv/bin/)?vouch (.*)$", re.MULTILINE)
FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("starter/**/*.md"), *ROOT.glob("benchmarks/*.md")]
GENERATED = {ROOT / "docs" / name for name in ("reference/cli.md", "reference/campaign.md", "notebook.md")}
INCLUDED = {ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "RESULTS.md"}
CODE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
WORDS = runpy.run_path(str(Path(__file__).parents[2] / "docs/words.py"))
Word, find_words = WORDS["Word"], WORDS["find_words"]


def shown(page: Path) -> list[list[str]]:
    blocks = (text for _, text in BLOCK.findall(page.read_text(encoding="utf-8")))
    lines = (line for text in blocks for line in SHOWN.findall(text))
    # Up to a pipe or a redirection, which are the shell's.
    return [shlex.split(re.split(r" [|>] ", line)[0], comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for words in shown(page):
        command = typer.main.get_command(app)
        while (commands := getattr(command, "commands", None)) and not words[0].startswith("-"):
            assert words[0] in commands, words
            command, words = commands[words[0]], words[1:]
        options = {"--help"} | {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        for word in words:
            if word.startswith("-"):
                assert word.partition("=")[0] in options, words


def test_the_first_page_shows_its_commands():
    names = [words[0] for words in shown(ROOT / "README.md")]
    assert names[:2] == ["init", "preview"]
    assert {"models", "run", "status", "review", "certify", "apply", "report"} <= {*names}


def test_the_first_page_is_no_book():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


# Relative links and pictures of the Markdown files lead somewhere, and generated pages can be made.


def _text(path: Path) -> str:
    """The text of a page, with what it includes."""
    include = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
    return include.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), path.read_text(encoding="utf-8"))


def _links(text: str) -> list[str]:
    return [link for link in LINK.findall(CODE.sub("", text)) if "://" not in link]


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in _links(path.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists() or target in GENERATED, link
        if anchor and target.suffix == ".md" and target not in GENERATED:
            assert anchor in _anchors(_text(target)), link


def test_files_that_pages_include_link_to_no_other_file():
    # Such a link would lead from docs/ to another place than from their own folder.
    links = {path: [link for link in _links(_text(path)) if not link.startswith("#")] for path in INCLUDED}
    assert not any(links.values()), links


def test_the_reference_has_every_key_and_every_command():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    campaign, commands = module.campaign_page(), module.cli_page()
    for row in (
        "| `uri` | text | required |",
        "| `shard_size` | integer | `1000` |",
        "## models.detector\n",
        "## classes[]\n",
    ):
        assert row in campaign
    for line in ("## `vouch run`", "### `vouch models pull`", "$ vouch models check campaign.yaml"):
        assert line in commands
    assert commands.count("Exit codes:") == 1
    assert commands.isprintable() or set("\n") == {letter for letter in commands if not letter.isprintable()}


# The notebook of the documentation runs, in a folder of its own and without a home folder, and shows what it holds.


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


def test_a_word_is_found_with_its_line_and_the_term():
    text = "import a\n\nHouse_task = 1\nit was worked\n    off twice\n"
    assert list(find_words(text)) == [(4, "worked off", "processed"), (3, "House_task", "vouch_task")]


@pytest.mark.parametrize("text", ["It worked. Off it went.", "there is room", "roomservice", "a handout"])
def test_ordinary_english_is_left_alone(text):
    assert list(find_words(text)) == []


def test_a_stored_name_may_stand():
    word = Word(r"\blooks?\b", "test", r"runs/<run>/looks|\"look\"")
    assert [line for line, _, _ in find_words('"look"\nruns/<run>/looks\nlook\n"a look"', (word,))] == [3, 4]


@pytest.mark.parametrize("word", WORDS["WORDS"], ids=lambda word: word.term)
def test_every_pattern_is_one_and_matches_no_term(word):
    assert not re.search(word.pattern, word.term, re.IGNORECASE)
    assert not re.fullmatch(word.pattern, "", re.IGNORECASE)
