"""The JSON schema of campaign files, for editors that complete and check them."""

from typing import Any

from schemas.campaign.campaign import Campaign
from schemas.campaign.fields import OR_TEXT


def campaign_json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) that accepts what `load_campaign` accepts.

    Returns:
        The schema; every key has its description.
    """
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
