import pytest

from tasks.export.fates import fate_of, not_exhaustive
from tasks.export.records import ExportImage, ExportLabel

IDS = {"cat": 1, "dog": 2, "owl": 3}


def label(decision="review", reviewed="", class_name="cat", verdict=None):
    return ExportLabel("1", class_name, (0, 0, 5, 5), None, 0, 0.5, None, decision, "p", reviewed, "auto", verdict)


@pytest.mark.parametrize(
    ("decision", "reviewed", "ignore", "drop", "include"),
    [
        ("accept", "", ("accepted", False), ("accepted", False), ("accepted", False)),
        ("review", "", ("undecided", True), ("dropped", False), ("undecided", False)),
        ("accept", "disputed", ("undecided", True), ("dropped", False), ("undecided", False)),
        ("accept", "unclear", ("undecided", True), ("dropped", False), ("undecided", True)),
        ("review", "unclear", ("undecided", True), ("dropped", False), ("undecided", True)),
        ("accept", "rejected", ("rejected", False), ("rejected", False), ("rejected", False)),
        ("review", "kept", ("kept", False), ("kept", False), ("kept", False)),
        ("review", "corrected", ("corrected", False), ("corrected", False), ("corrected", False)),
        (None, "added", ("added", False), ("added", False), ("added", False)),
    ],
)
def test_fates(decision, reviewed, ignore, drop, include):
    one = label(decision, reviewed)
    assert (fate_of(one, "ignore"), fate_of(one, "drop"), fate_of(one, "include")) == (ignore, drop, include)


@pytest.mark.parametrize(
    ("checked", "labels", "fates", "expected"),
    [
        ((), [], [], (1, 2, 3)),
        (IDS, [], [], ()),
        (("dog", "gone"), [], [], (1, 3)),
        (IDS, [label("accept"), label(class_name="dog")], ["accepted", "dropped"], (2,)),
        (IDS, [label(verdict="wrong_class")], ["undecided"], (1, 2, 3)),
        (IDS, [label(verdict="wrong_class")], ["corrected"], ()),
        (IDS, [label(verdict="bad_box")], ["unusable"], (1,)),
    ],
)
def test_classes_of_which_there_may_be_more(checked, labels, fates, expected):
    image = ExportImage("a.png", 9, 9, labels, checked=frozenset(checked))
    assert not_exhaustive(image, fates, IDS) == expected
