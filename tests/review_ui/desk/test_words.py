"""Questions in words."""

import pytest

from review_ui.desk.words import question_of


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("label", "cat", "Is this a cat?"),
        ("label", "airplane", "Is this an airplane?"),
        ("possible_miss", "dog", "Is there a dog that no box shows? Draw every one"),
        ("image", "dog", "Find every dog that no box shows"),
        ("image", None, "Find every object that no box shows"),
    ],
)
def test_each_kind_asks_in_its_way(item, kind, name, words):
    assert question_of(item.model_copy(update={"kind": kind, "class_name": name})) == words
