"""Writes a commented campaign file with every key, and the JSON schema by which editors complete and check one."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.campaign_file import OR_TEXT, alternatives

SCHEMA_FILE: Final = "campaign.schema.json"
"""Name of the JSON schema beside the campaign, for editors."""

_WIDTH: Final = 110
_HEADER: Final = f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
#
# A campaign of Vouch: which images are labelled, by which models, and what comes out.
#
# `vouch run` with this file labels the images and exports a COCO data set, or resumes; `vouch status` tells how
# far it is.
#
# A key behind a # has the value that is shown, or none where an example is shown; remove the # to set it.
"""


def starter_campaign_text(values: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> str:
    """Write a campaign with these values set and every other key commented out at its default, as YAML.

    `values` are nested as the file is, and hold what the campaign cannot do without; `notes` are more words above a
    dotted key (`routing.accept`).
    """
    return "\n".join([_HEADER, *_Writer(notes or {}).section(Campaign, values, "")]).rstrip() + "\n"


class _Writer:
    def __init__(self, notes: Mapping[str, str]) -> None:
        self._notes = notes

    def section(self, model: type[BaseModel], values: Mapping[str, Any], path: str) -> Iterator[str]:
        """Lines of a section at indent 0."""
        for name, field in model.model_fields.items():
            here = f"{path}.{name}" if path else name
            yield from _words(f"{field.description}{_choices(field)}")
            yield from _words(self._notes.get(here, ""))
            yield from self._field(name, field, values, here)
            if not path:
                yield ""

    def _field(self, name: str, field: FieldInfo, values: Mapping[str, Any], path: str) -> Iterator[str]:
        is_list, model = _section_model(field)
        given = name in values
        if model is None:
            yield _setting(name, field, values)
        elif is_list:
            examples = {key: one.examples[0] for key, one in model.model_fields.items() if one.examples}
            lines = [f"{name}:", *self._items(model, values.get(name) or [examples], path)]
            yield from lines if given else _disabled(lines)
        else:
            children = [f"  {line}" for line in self.section(model, values.get(name, {}), path)]
            if given or type(None) not in alternatives(field.annotation):
                yield from [f"{name}:", *children]
            else:
                yield from _disabled([f"{name}:", *(_enabled(line) for line in children)])

    def _items(self, model: type[BaseModel], items: Sequence[Mapping[str, Any]], path: str) -> Iterator[str]:
        """List items; the first shows every key, the others only their own."""
        for index, item in enumerate(items):
            if index:
                lines = [f"{key}: {_inline(value)}" for key, value in item.items()]
            else:
                lines = list(self.section(model, item, f"{path}[]"))
                first = next(at for at, line in enumerate(lines) if not line.startswith("#"))
                # The dash goes before the first key that is set; what explains it stands above the dash.
                yield from ("  " + line for line in lines[:first])
                lines = lines[first:]
            yield from (("  - " if at == 0 else "    ") + line for at, line in enumerate(lines))


def _section_model(field: FieldInfo) -> tuple[bool, type[BaseModel] | None]:
    for kind in alternatives(field.annotation):
        is_list = get_origin(kind) is tuple
        leaf = get_args(kind)[0] if is_list else kind
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            return is_list, leaf
    return False, None


def _choices(field: FieldInfo) -> str:
    presets = [kind for kind in alternatives(field.annotation) if get_origin(kind) is Literal]
    choices = [str(name) for kind in presets for name in get_args(kind)]
    return f" One of {', '.join(choices)}." if len(choices) > 1 else ""


def _setting(name: str, field: FieldInfo, values: Mapping[str, Any]) -> str:
    if name in values:
        return f"{name}: {_inline(values[name])}"
    if field.examples and field.default in (None, (), ""):
        return f"#{name}: {_inline(field.examples[0])}  # an example"
    return f"#{name}: {_inline(field.default)}"


def _inline(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def _words(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]


def _disabled(lines: Sequence[str]) -> list[str]:
    return [f"#{line}" for line in lines]


def _enabled(line: str) -> str:
    """Undo the # of a setting inside a block that is commented out as a whole."""
    text = line.lstrip()
    return line.replace("#", "", 1) if text.startswith("#") and not text.startswith("# ") else line


def campaign_json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) that accepts what `load_campaign` accepts; every key has its description."""
    schema = Campaign.model_json_schema()
    definitions = schema["$defs"]
    for name in OR_TEXT:
        definitions[name] = {"anyOf": [{"type": "string"}, definitions[name]]}
    for section in (schema, *definitions.values()):
        for branch in section.get("anyOf", [section]):
            _allow_empty(branch)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_empty(section: dict[str, Any]) -> None:
    """Let a key without a value stand for its default."""
    required = section.get("required", [])
    for name, entry in section.get("properties", {}).items():
        if name not in required:
            words = {key: entry.pop(key) for key in ("description", "default", "examples") if key in entry}
            section["properties"][name] = {**words, "anyOf": [entry, {"type": "null"}]}
