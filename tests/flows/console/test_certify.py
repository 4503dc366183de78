import io

from rich.console import Console

from vouch_labels.flows.console.certify import MOST_NAMED, print_certified
from vouch_labels.schemas.policy import Certified, Group, GroupCertificate, Reviewers

TESTED = GroupCertificate(
    labels=1000, accepted=600, reviewed=1400, errors=8, limit=0.05, bound=0.034, p_value=0.01, delta=0.08,
    tested=(0.9,), accepted_precision=0.96, accepted_at_least=0.94,
)  # fmt: skip
NOTHING_DRAWN = GroupCertificate(
    labels=90, accepted=0, reviewed=0, errors=0, limit=0.05, bound=1, p_value=1, delta=0.04, tested=(),
    refusal="plan with more minutes",
)  # fmt: skip


def text(*groups: Group, not_sampled: tuple[str, ...] = (), simulated: bool = False, in_force: bool = False) -> str:
    out = io.StringIO()
    found = Certified(
        run="main", workspace="/w", version="certified-1-a", precision=0.95, confidence=0.9, gate="delivered", look=1,
        delta=0.08, labels=1500, kept_for_fitting=410, accepted=600, groups=groups, not_sampled=not_sampled,
        classes=(), reviewers=Reviewers(), simulated=simulated, in_force=in_force,
    )  # fmt: skip
    print_certified(Console(file=out, width=140), found)
    return out.getvalue()


CAT = Group(name="cat", classes=("cat",), p_correct=0.9, certificate=TESTED)
DOG = Group(name="dog", classes=("dog",), certificate=NOTHING_DRAWN)


def test_groups_without_a_sample_are_not_in_the_table():
    rows = [line.split() for line in text(CAT, DOG).splitlines() if "│" in line]
    assert [row[1] for row in rows] == ["cat"]
    assert rows[0][3] == "1,400"
    assert "dog: not certified: plan with more minutes" in text(CAT, DOG)
    assert "│" not in text(DOG)


def test_classes_without_a_sample_are_one_line():
    assert "no label in the sample" not in text(CAT)
    one = text(CAT, not_sampled=("emu",)).splitlines()
    assert [line for line in one if "emu" in line] == [
        "1 class has no label in the sample, so nothing is known of it and its labels go to people: emu"
    ]
    names = tuple(f"bird {number}" for number in range(MOST_NAMED + 3))
    (line,) = (line for line in text(CAT, not_sampled=names).splitlines() if "bird" in line)
    assert line.startswith(f"{len(names)} classes have no label in the sample")
    assert line.endswith(f"bird {MOST_NAMED - 1} and 3 more")


def test_what_is_in_force_already_is_not_advised():
    assert "put it in force: vouch apply CAMPAIGN" in text(CAT)
    assert "it is in force already" not in text(CAT)
    assert "vouch apply" not in text(CAT, in_force=True)
    assert "it is in force already" in text(CAT, in_force=True)


def test_after_a_simulated_reviewer_it_says_how_people_come_to_answer():
    assert "another workspace.uri" in text(CAT, simulated=True)
    assert "another workspace.uri" not in text(CAT)
