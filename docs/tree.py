"""Writes the tree of the repository into README.md: `python docs/tree.py`; the words are the files' own first lines."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- tree -->\n", "<!-- /tree -->"
ROOMS = ("schemas", "tasks", "flows", "review_ui", "starter", "benchmarks", "deploy")
OTHER = {
    "pyproject.toml": "Dependencies with their reasons, rules of the linters.",
    "requirements.lock": "Every package with its hashes.",
    "Makefile": "One target a job: `make help`.",
    ".ci/run": "What continuous integration runs.",
    "docs/design.md": "How Vouch is built.",
    "docs/evaluate.md": "Labels against ground truth: what `vouch evaluate` compares and reports.",
    "docs/screenshot.py": "Takes a picture of a report in Chromium.",
    "docs/starter.md": "The bundled models and the drawn world that they know.",
    "docs/tree.py": "Writes this tree.",
    "CHANGELOG.md": "What changed.",
}
SLASHES = re.compile(r"^//(?! @ts-check)\s*(.+)$", re.MULTILINE)
COMMENT = re.compile(r"^#(?!!| syntax)\s*(.+)$", re.MULTILINE)


def tree() -> str:
    """Give the tree as text, a line a file; data, samples and tests are told by their folders."""
    # Files that are new and not yet added stand in it too: the tree is written before the commit that adds them.
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ROOMS]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [f"{name:<44} {words}" for name, words in OTHER.items()]
    folder = ""
    for name in sorted(set(names.splitlines()), key=_place):
        path = ROOT / name
        words = _words(path)
        if words is None:
            continue
        parent = str(path.parent.relative_to(ROOT))
        if parent != folder:
            folder = parent
            lines.append(f"\n{folder + '/':<44} {_words(path.parent / '__init__.py') or ''}".rstrip())
        if path.name != "__init__.py":
            lines.append(f"  {path.name:<42} {words}")
    lines.append(f"\n{'tests/':<44} Mirrors the rooms.")
    return "\n".join(lines)


def _place(name: str) -> tuple[int, str, str]:
    room, parent = name.partition("/")[0], name.rpartition("/")[0]
    return ROOMS.index(room), parent, name


def updated(readme: str) -> str:
    """Give the README with the tree of today."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n```text\n{tree()}\n```\n\n{END}{after}"


def _words(path: Path) -> str | None:
    """The first line that a file says of itself; None for data."""
    if not path.is_file():
        return None
    if path.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        return docstring.partition("\n")[0] or None
    if path.suffix in {".sh", ".yaml"} or (path.name.startswith("Dockerfile") and path.suffix != ".dockerignore"):
        found = COMMENT.search(path.read_text(encoding="utf-8"))
        return found.group(1) if found else None
    if path.suffix in {".js", ".ts"} and not path.name.endswith(".test.js"):
        found = SLASHES.search(path.read_text(encoding="utf-8"))
        return found.group(1) if found else None
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    return None


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text(encoding="utf-8")), encoding="utf-8")
