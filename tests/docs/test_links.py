"""Relative links and pictures of the Markdown files lead somewhere, and generated pages can be made."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("starter/**/*.md"), *ROOT.glob("benchmarks/*.md")]
GENERATED = {ROOT / "docs" / name for name in ("reference/cli.md", "reference/campaign.md", "notebook.md")}
INCLUDED = {ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "RESULTS.md"}
CODE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


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
