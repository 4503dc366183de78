import json

import pytest

from tasks.route.content_name import content_name, is_as_named


@pytest.fixture
def document(certified):
    return json.loads(certified({"dog": 0.9, "cat": None}).model_dump_json())


def name(document):
    return content_name(3, document["groups"], document["certification"])


def data(document):
    return json.dumps(document).encode()


def test_it_follows_all_but_the_time(document):
    version = name(document)
    assert version.startswith("certified-3-")
    assert is_as_named(version, data(document))
    document["certification"]["created"] = "2027-01-01T00:00:00+00:00"
    assert is_as_named(version, data(document))
    document["groups"][0]["p_correct"] = 0.1
    assert name(document) != version
    assert not is_as_named(version, data(document))


def test_names_of_another_kind_say_nothing_of_the_content(document):
    for version in ("user-0a1b2c3d0a1b2c3d", "mine", "expired-certified-1-0a1b2c3d"):
        assert is_as_named(version, data(document))


@pytest.mark.parametrize(
    "other", ["{}", "[]", '{"groups": 1, "certification": 2}', '{"groups": NaN, "certification": {}}']
)
def test_what_is_no_policy_is_not_as_named(other):
    assert not is_as_named("certified-1-0a1b2c3d", other.encode())
