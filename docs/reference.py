"""Writes the generated pages of docs/: the reference from the code, the notebook as Markdown; `make docs` calls it."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vouch_labels.flows.cli import app
from vouch_labels.schemas.campaign import Campaign

FOLDER = Path(__file__).parent / "reference"
NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
TITLE = "Command line"
PLAIN = {"PYTHONUTF8": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


def cli_page() -> str:
    """Render every command of `vouch`: typer's own page, examples as code, what is the same everywhere said once."""
    command = [sys.executable, "-m", "typer", app.__name__, "utils", "docs", "--name", "vouch", "--title", TITLE]
    page = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=os.environ | PLAIN).stdout
    exit_codes = next(line for line in page.splitlines() if line.startswith("Exit codes:"))
    for text, better in (
        (f"\n{exit_codes}\n", "\n"),
        ("* `--help`: Show this message and exit.\n", ""),
        ("\b", ""),  # by which the epilog keeps its lines apart
        ("&quot;", '"'),
        ("&#x27;", "'"),
    ):
        page = page.replace(text, better)
    # The summaries of the commands are cut short, and say what stands under each heading.
    page = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", page)
    page = re.sub(r"\*\*Options\*\*:\n\n(?!\*)", "", page)
    page = re.sub(r"\nExamples:\n((?:  .*\n)+)", _as_code, page)
    head, _, rest = page.partition("\n## ")
    page = f"{head.rstrip()}\n\n{exit_codes}\n\n## {rest}"
    return re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n"


def _as_code(found: re.Match[str]) -> str:
    lines = [f"$ {line.strip()}\n" for line in found[1].splitlines()]
    return f"\n**Examples**:\n\n```console\n{''.join(lines)}```\n"


def campaign_page() -> str:
    """Render every key of campaign.yaml, with its type, default and description."""
    lines = [
        "# campaign.yaml",
        "",
        "`vouch init` writes this file with every key and its description. A key that is not listed here is refused, "
        "with the nearest right name. Keys without a default must be given; `...` after a type means a list of it.",
        "",
    ]
    rows, sections = _fields(Campaign, "")
    lines += _table(("section", "type", "default", ""), rows)
    written: dict[type[BaseModel], str] = {}
    while sections:
        path, model = sections.pop(0)
        lines += [f"## {path}", "", inspect.cleandoc(model.__doc__ or ""), ""]
        if model in written:
            lines += [f"The keys are those of `{written[model]}`.", ""]
            continue
        written[model] = path
        rows, inner = _fields(model, path)
        sections = inner + sections
        lines += _table(("key", "type", "default", ""), rows)
    return "\n".join(lines)


def _fields(model: type[BaseModel], path: str) -> tuple[list[tuple[str, ...]], list[tuple[str, type[BaseModel]]]]:
    rows: list[tuple[str, ...]] = []
    sections = []
    for name, field in model.model_fields.items():
        place = f"{path}.{name}" if path else name
        inner = _model(field.annotation)
        if inner is not None:
            place += "[]" if _is_list(field.annotation) else ""
            sections.append((place, inner))
        rows.append((f"`{name}`", _type(field.annotation), _default(field, inner), _cell(field.description or "")))
    return rows, sections


def _default(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, ""):
        return "empty"
    if isinstance(field.default, BaseModel):
        return ""
    if field.default == ():
        return "empty list"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "" if inner is not None else f"`{_plain(value)}`"


def _plain(value: Any) -> str:  # noqa: ANN401 - defaults are any object
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(annotation: Any) -> str:  # noqa: ANN401 - annotations are any object
    kinds = [kind for kind in _alternatives(annotation) if kind is not type(None)]
    return " or ".join(dict.fromkeys(_one_type(kind) for kind in kinds))


def _one_type(kind: Any) -> str:  # noqa: ANN401 - annotations are any object
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return f"{_type(parts[0])} ..." if Ellipsis in parts else ", ".join(map(_type, parts))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(kind, str(kind))


def _alternatives(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - annotations are any object
    if hasattr(annotation, "__metadata__"):
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(leaf for entry in get_args(annotation) for leaf in _alternatives(entry))
    return (annotation,)


def _model(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - annotations are any object
    for kind in _alternatives(annotation):
        inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def _is_list(annotation: Any) -> bool:  # noqa: ANN401 - annotations are any object
    return any(get_origin(kind) is tuple for kind in _alternatives(annotation))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)] + [""]


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;").replace("**/", "\\*\\*/")


def notebook_page(folder: Path) -> str:
    """Render docs/notebook.ipynb as it was run last, its pictures into a folder."""
    from nbconvert import MarkdownExporter

    resources = {"output_files_dir": folder.name, "unique_key": NOTEBOOK.stem}
    page, resources = MarkdownExporter().from_filename(str(NOTEBOOK), resources)
    folder.mkdir(exist_ok=True)
    for name, content in resources["outputs"].items():
        (folder.parent / name).write_bytes(content)
    title, rest = page.strip().split("\n", 1)
    return f"{title}\n\n[This page as a notebook]({NOTEBOOK.name})\n{rest}\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "cli.md").write_text(cli_page(), encoding="utf-8")
    (FOLDER / "campaign.md").write_text(campaign_page(), encoding="utf-8")
    NOTEBOOK.with_suffix(".md").write_text(notebook_page(NOTEBOOK.with_name("notebook_files")), encoding="utf-8")
