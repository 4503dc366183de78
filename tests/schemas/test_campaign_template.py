import json
import re

import jsonschema
import pytest
from pydantic import BaseModel

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.campaign_file import load_campaign, model_at, parse_yaml
from vouch_labels.schemas.campaign_template import campaign_json_schema, starter_campaign_text

VALUES = {
    "source": {"uri": "s3://bucket/images"},
    "workspace": {"uri": "./workspace"},
    "classes": [{"name": "cat", "prompts": ["cat", "kitten"]}, {"name": "no", "negatives": ["yes: no"]}],
}


def settings_on(text: str) -> str:
    """Remove the # of every setting; words keep theirs, a # and one space."""
    return re.sub(r"^( *)#(?! \S)", r"\1", text, flags=re.MULTILINE)


def keys(model: type[BaseModel], prefix: tuple = ()) -> set[tuple]:
    found = set()
    for name in model.model_fields:
        found.add((*prefix, name))
        for step in ((name,), (name, 0)):
            inner = model_at(model, step)
            if inner is not None:
                found |= keys(inner, (*prefix, *step))
    return found


def test_it_loads_with_the_defaults_and_the_values(tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(starter_campaign_text(VALUES))
    expected = Campaign.model_validate({**VALUES, "workspace": str(tmp_path / "workspace")})
    assert load_campaign(path) == expected


def test_it_loads_with_every_setting_on(tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(settings_on(starter_campaign_text(VALUES)))
    campaign = load_campaign(path)
    assert campaign.export.splits is not None
    assert campaign.routing.accept is not None
    assert campaign.export.licences
    assert campaign.run.tiles is not None
    assert campaign.run.model_copy(update={"tiles": None}) == Campaign.model_validate(VALUES).run


def test_every_key_of_every_section_is_there_with_its_description():
    text = starter_campaign_text(VALUES)
    tree = parse_yaml(settings_on(text))
    wanted = keys(Campaign)
    assert ("classes", 0, "accept", "sam_iou") in wanted
    assert wanted <= set(tree.lines)
    lines = text.splitlines()
    for path in wanted:
        above = lines[tree.lines[path] - 2].strip()
        assert re.match(r"#( +#)? +\S", above) or above.startswith("# "), (path, above)


def test_no_description_is_missing():
    def walk(model: type[BaseModel]):
        for name, field in model.model_fields.items():
            assert field.description, (model, name)
            for step in ((name,), (name, 0)):
                inner = model_at(model, step)
                if inner is not None:
                    walk(inner)

    walk(Campaign)


def test_keys_that_default_to_nothing_show_an_example():
    assert not re.search(r"#\w+: (null|\[\])", starter_campaign_text(VALUES))


def test_choices_and_notes_are_told():
    text = starter_campaign_text(VALUES, {"routing.accept": "These are yours."})
    assert "One of none, link, copy." in " ".join(text.replace("#", "").split())
    assert "# These are yours." in text


@pytest.mark.parametrize("name", ["no", "a: b", "#x", "'", '"', "- a", "é ☃", "5", "null", "[a"])
def test_any_class_name_survives(tmp_path, name):
    path = tmp_path / "campaign.yaml"
    path.write_text(starter_campaign_text({**VALUES, "classes": [{"name": name, "prompts": [name]}]}))
    assert load_campaign(path).classes[0].prompts == (name,)


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
