import json

import jsonschema
import pytest

from schemas.campaign.json_schema import campaign_json_schema
from schemas.campaign.starter_text import starter_campaign_text
from schemas.campaign.yaml_tree import parse_yaml

SMALL = {"source": "images", "workspace": {"uri": "ws"}, "classes": ["cat", {"name": "dog"}]}


def errors(data: object) -> list[str]:
    validator = jsonschema.Draft202012Validator(campaign_json_schema())
    return [error.json_path for error in validator.iter_errors(data)]


def test_it_is_a_schema():
    schema = campaign_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)


def test_it_accepts_what_the_loader_accepts():
    assert errors(SMALL) == []
    assert errors({**SMALL, "models": None, "run": {"name": None}}) == []
    values = {"source": {"uri": "a"}, "workspace": {"uri": "b"}, "classes": [{"name": "c"}]}
    assert errors(parse_yaml(starter_campaign_text(values)).data) == []


@pytest.mark.parametrize("extra", [{"modles": {}}, {"run": {"retries": -1}}, {"export": {"preset": "x"}}])
def test_it_refuses_what_the_loader_refuses(extra):
    assert errors({**SMALL, **extra})


def test_keys_keep_their_descriptions():
    definitions = campaign_json_schema()["$defs"]
    assert "trainer" in definitions["ExportConfig"]["properties"]["preset"]["description"].lower()
