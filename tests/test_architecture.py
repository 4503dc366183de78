"""Imports go one way, and what must stay light stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"flows", "tasks", "schemas", "review_ui", "starter", "benchmarks", "tests"}
ALLOWED = {
    "schemas": {"schemas"},
    "tasks": {"tasks", "schemas"},
    "review_ui": {"review_ui", "tasks", "schemas"},
    "starter": {"starter", "tasks", "schemas"},
    "flows": {"flows", "tasks", "schemas", "review_ui", "starter"},
}
FORBIDDEN = {"schemas": {"numpy", "torch", "prefect"}, "tasks": {"prefect"}, "flows": {"numpy", "torch"}}


def _imports(package: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, _package(alias.name)) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, _package(node.module)


def _package(module: str) -> str:
    return module.removeprefix("vouch_labels.").partition(".")[0]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_go_one_way(package):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in _imports(package)
        if (name in PACKAGES and name not in ALLOWED[package]) or name in FORBIDDEN.get(package, set())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("vouch_labels.flows.cli", ["torch", "prefect", "fiftyone", "numpy", "pyarrow", "transformers"]),
        ("vouch_labels.tasks.export.export", ["torch", "prefect", "fiftyone", "transformers"]),
        (
            "vouch_labels.tasks.models.registry",
            ["torch", "transformers", "groundingdino", "segment_anything", "open_clip"],
        ),
        ("vouch_labels.schemas.campaign", ["torch", "numpy", "pyarrow"]),
    ],
)
def test_imports_stay_light(module, heavy):
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {set(heavy)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
