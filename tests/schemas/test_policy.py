"""What the result of certifying says."""

from typing import Any

from vouch_labels.schemas.policy import MOST_NAMED, Certified, Group, GroupCertificate, Reviewers
from vouch_labels.schemas.text import NONE, Table

TESTED = GroupCertificate(
    labels=1000, accepted=600, reviewed=1400, errors=8, limit=0.05, bound=0.034, p_value=0.01, delta=0.08,
    tested=(0.9,), accepted_precision=0.96, accepted_at_least=0.94,
)  # fmt: skip
NOTHING_DRAWN = GroupCertificate(
    labels=90, accepted=0, reviewed=0, errors=0, limit=0.05, bound=1, p_value=1, delta=0.04, tested=(),
    refusal="plan with more minutes",
)  # fmt: skip


def certified(*groups: Group, **changes: Any) -> Certified:
    values: dict[str, Any] = {
        "run": "main", "workspace": "/w", "version": "certified-1-a", "precision": 0.95, "confidence": 0.9,
        "gate": "delivered", "look": 1, "delta": 0.08, "labels": 1500, "kept_for_fitting": 410, "accepted": 600,
        "groups": groups, "classes": (), "reviewers": Reviewers(), "simulated": False,
    }  # fmt: skip
    return Certified(**values | changes)


CAT = Group(name="cat", classes=("cat",), p_correct=0.9, certificate=TESTED)
DOG = Group(name="dog", classes=("dog",), certificate=NOTHING_DRAWN)


def test_groups_without_a_sample_are_not_in_the_table(lines):
    found = certified(CAT, DOG)
    (table,) = (block for block in found.blocks() if isinstance(block, Table))
    assert [row[:4] for row in table.rows] == [("cat", 1400, 8, 0.034)]
    assert next(table.cells())[-2:] == ["96% (≥94%)", NONE]
    assert "dog: not certified: plan with more minutes" in lines(found)
    assert not any(isinstance(block, Table) for block in certified(DOG).blocks())


def test_classes_without_a_sample_are_one_line(lines):
    assert not any("no label in the sample" in line for line in lines(certified(CAT)))
    one = "1 class has no label in the sample, so nothing is known of it and its labels go to people: emu"
    assert one in lines(certified(CAT, not_sampled=("emu",)))
    names = tuple(f"bird {number}" for number in range(MOST_NAMED + 3))
    (line,) = (line for line in lines(certified(CAT, not_sampled=names)) if "bird" in line)
    assert line.startswith(f"{len(names)} classes have no label in the sample")
    assert line.endswith(f"bird {MOST_NAMED - 1} and 3 more")


def test_an_active_policy_is_not_advised(lines):
    advice, active = "make it the active policy: vouch apply CAMPAIGN", "it is active already"
    assert [line for line in lines(certified(CAT)) if line in (advice, active)] == [advice]
    assert [line for line in lines(certified(CAT, in_force=True)) if line in (advice, active)] == [active]


def test_after_a_simulated_reviewer_it_says_how_people_come_to_answer(lines):
    assert any("another workspace.uri" in line for line in lines(certified(CAT, simulated=True)))
    assert not any("another workspace.uri" in line for line in lines(certified(CAT)))
