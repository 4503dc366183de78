"""The bundle that FiftyOne's App loads is what the modules of review_ui/browser make."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vouch_labels.review_ui.session.session import ItemSummary

ROOT = Path(__file__).parents[3]
BROWSER = ROOT / "review_ui" / "browser"
BUNDLE = ROOT / "review_ui" / "plugin" / "index.umd.js"


def test_the_bundle_is_built_from_its_modules(tmp_path):
    node = shutil.which("node")
    if node is None or not (BROWSER / "node_modules" / "esbuild").is_dir():
        pytest.skip("no node (Debian's packages nodejs and npm bring it; then: make js)")
    subprocess.run([node, BROWSER / "build.js", tmp_path], cwd=tmp_path, check=True)
    assert [path.name for path in tmp_path.iterdir()] == [BUNDLE.name]
    assert (tmp_path / BUNDLE.name).read_text() == BUNDLE.read_text(), "run: make js, and commit the bundle"


def test_every_module_is_in_the_bundle():
    named = [line.strip() for line in BUNDLE.read_text().splitlines() if line.strip().startswith("// src/")]
    assert sorted(named) == sorted(f"// src/{path.name}" for path in (BROWSER / "src").glob("*.js"))


def test_every_module_is_checked_for_types():
    for path in (BROWSER / "src").glob("*.js"):
        assert path.read_text().startswith("// @ts-check\n"), path.name


def test_an_item_has_the_fields_that_its_modules_know():
    types = (BROWSER / "src" / "types.d.ts").read_text()
    body = types.partition("export interface ItemSummary {")[2].partition("\n}")[0]
    assert set(re.findall(r"^  (\w+):", body, re.MULTILINE)) == set(ItemSummary.__annotations__)
