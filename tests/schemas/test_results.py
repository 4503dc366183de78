"""What results say, of labelling as of planning and reviewing; figures never claim more than they are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas import text
from vouch_labels.schemas.campaign import DRAWN, DRAWN_COLOURS
from vouch_labels.schemas.evaluation import MOST_CELLS, MOST_PAIRS, Confusion, SignalCurves, SweepRow
from vouch_labels.schemas.policy import MOST_NAMED, Certified, Covered, Group, GroupCertificate, Reviewers
from vouch_labels.schemas.queue import PullOutcome, QueueStatus
from vouch_labels.schemas.records import ApplySummary, ClassCounts, ExportOutcome, RunSummary, bundled_models
from vouch_labels.schemas.reviews import Planned, ReviewPlan
from vouch_labels.schemas.text import NONE, Table, policy_with_basis
from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE

EXPORT = {"uri": "/w/exports/coco", "annotations_file": "/w/exports/coco/annotations.json", "images": 8,
          "annotations": 20, "accepted": 12}  # fmt: skip


def summary(**changes) -> RunSummary:
    values = {
        "run": "main", "workspace": "/w", "images": 1234, "done": 8, "failed": 2, "pending": 0, "new_images": 10,
        "removed_images": 1, "shards": 3, "shards_processed": 2, "labels": 20, "accepted": 12, "review": 8,
        "classes": {"cat": ClassCounts(accepted=12, review=8)}, "reasons": {"acquire: truncated": 2},
        "policy": "user-36c20f", "policy_basis": "user thresholds, not certified", "accepts": True, "shard_errors": {},
        "seconds": 65.0, "images_per_second": 0.2,
        "export": ExportOutcome.model_validate({"images_missed": 0, **EXPORT}),
    }  # fmt: skip
    return RunSummary.model_validate({**values, **changes})


def test_figures_classes_reasons_and_places(lines):
    figures, classes = (block for block in summary().blocks() if isinstance(block, Table))
    values = {name: value for name, value in figures.rows}  # noqa: C416 - rows have Any in them, of which dict() has no type
    assert values["images"] == "1,234 (10 new or changed, 1 removed)"
    assert values["time"] == "1 min 5 s"
    assert values["policy"] == "manual thresholds, not certified"
    assert "pending" not in values
    assert classes.rows == [("cat", 12, 8)]
    assert lines(summary()) == [
        "2 images failed: acquire: truncated",
        "vouch status CAMPAIGN --failed names every image that failed",
        "data set: /w/exports/coco/annotations.json",
        "workspace: /w",
    ]


def test_nothing_accepted_says_what_comes_next(lines):
    (line,) = (line for line in lines(summary(accepts=False)) if "Nothing was accepted" in line)
    assert "vouch review CAMPAIGN" in line
    assert "vouch plan-reviews CAMPAIGN" in line
    assert "routing.accept" in line


UNUSABLE = "NOTHING IN THE DATA SET IS USABLE FOR A TRAINER YET: "
NONE_ACCEPTED = {"accepted": 0, "human": 0}


def first(result) -> str:
    block = next(iter(result.blocks()))
    return block if isinstance(block, str) else block.title


@pytest.mark.parametrize("export", [None, ExportOutcome.model_validate({**EXPORT, **NONE_ACCEPTED, "undecided": 20})])
def test_a_run_without_a_usable_label_says_so_first(export):
    words = f"{UNUSABLE}20 labels wait for review, and none is accepted. Next: vouch review CAMPAIGN"
    assert first(summary(accepted=0, review=20, export=export)).startswith(words)
    assert first(summary()) == "run main"
    assert first(summary(accepted=0, review=0, labels=0, done=0, export=None)) == "run main"


def test_a_run_that_found_nothing_says_what_to_try():
    assert "no object is in it. Next: give the classes other prompts" in first(summary(accepted=0, review=0, labels=0,
                                                                                       export=None))  # fmt: skip


def test_an_export_without_a_usable_label_says_so_first():
    values = EXPORT | NONE_ACCEPTED
    waiting = ExportOutcome.model_validate(values | {"undecided": 1})
    assert first(waiting).startswith(f"{UNUSABLE}1 label waits for review, and none is accepted. Next: vouch review")
    for usable in ({"accepted": 1}, {"human": 1}, {"unreviewed": 1}):
        assert first(ExportOutcome.model_validate(values | usable)).startswith("8 images, 20 annotations")


def test_an_applied_policy_without_a_usable_label_says_so_first():
    empty = ExportOutcome.model_validate({**EXPORT, **NONE_ACCEPTED, "undecided": 20})
    values = {"run": "main", "workspace": "/w", "policy": "none", "policy_basis": "no thresholds",
              "policy_before": "p", "labels": 20, "accepted_before": 12, "accepted": 0, "changed": 12, "classes": {},
              "pending": 0, "seconds": 1, "export": empty}  # fmt: skip
    assert first(ApplySummary.model_validate(values)).startswith(UNUSABLE)


def test_bundled_models_are_named_with_the_commands_that_get_others(lines):
    (line,) = (line for line in lines(summary(bundled=("detector", "scorer"))) if line.startswith("bundled models"))
    assert line.startswith("bundled models (detector, scorer): they know 28 drawn things")
    assert line.endswith("vouch models list")
    assert len(line) <= 120
    assert not any("bundled" in line for line in lines(summary()))


def test_the_bundled_models_know_as_many_things_as_is_said(lines):
    (line,) = bundled_models(("detector", "segmenter", "scorer"))
    assert f"know {len(CORE)} drawn things" in line
    assert len(line) <= 120
    assert {noun.name: noun.synonyms for noun in CORE} == DRAWN
    assert set(COLOURS) == set(DRAWN_COLOURS)


def test_classes_that_the_bundled_models_do_not_know_are_named_in_one_line(lines):
    found = lines(summary(bundled=("detector",), unknown_classes={"kat": "cat", "forklift": ""}))
    told = "the bundled models do not know kat (did you mean cat?), forklift; what they know: vouch models list"
    assert told in found
    assert not any("do not know" in line for line in lines(summary(bundled=("detector",))))


def test_an_expired_policy_is_told_loudly(lines):
    told = lines(summary(accepts=False, policy_expired="audits found 9 of 30 wrong"))
    start = "The policy has EXPIRED: audits found 9 of 30 wrong. Every label waits for review"
    assert [line.startswith(start) for line in told].count(True) == 1
    assert not any("Nothing was accepted" in line for line in told)


def test_what_could_not_be_finished_is_named(lines):
    found = summary(pending=5, shard_errors={"abc": "no space left"}, export=None)
    assert "shard abc could not be finished: no space left" in lines(found)
    assert ("pending", "5") in next(iter(found.blocks())).rows
    assert not any("data set" in line for line in lines(found))


def test_many_reasons_are_cut(lines):
    told = lines(summary(reasons={f"acquire: {i}": 20 - i for i in range(15)}))
    assert told[0] == "20 images failed: acquire: 0"
    assert "21 more images failed, for other reasons" in told


def test_splits_and_turned_images_are_told(lines):
    export = ExportOutcome.model_validate({**EXPORT, "split_files": ["/w/a_train.json"], "images_rotated": 2})
    told = lines(summary(export=export))
    assert "    split: /w/a_train.json" in told
    assert any(line.startswith("2 of its images carry an EXIF orientation") for line in told)


def test_images_that_are_missing_beside_the_annotations_are_told(lines):
    missed = ExportOutcome.model_validate({**EXPORT, "images_missed": 3, "missed": {"a.png": "gone", "b.png": "long"}})
    told = lines(summary(export=missed))
    start = told.index("3 images could not be put beside the annotations, and are left out of the data set:")
    assert told[start + 1 : start + 4] == ["    a.png: gone", "    b.png: long",
                                           "    and 1 more, which the log file names"]  # fmt: skip
    assert not any("beside the annotations" in line for line in lines(summary()))


@pytest.mark.parametrize(
    ("version", "basis", "text"),
    [
        ("user-36c20f11", "user thresholds, not certified", "manual thresholds, not certified"),
        ("user-36c20f11", "no thresholds: everything goes to review", "no thresholds: everything goes to review"),
        ("certified-1-a", "certified: at least 0.9", "certified-1-a (certified: at least 0.9)"),
    ],
)
def test_only_certified_policies_have_a_name(version, basis, text):
    assert policy_with_basis(version, basis) == text


TESTED = GroupCertificate(
    labels=1000, accepted=600, reviewed=1400, errors=8, limit=0.05, bound=0.034, p_value=0.01, delta=0.08,
    tested=(0.9,), accepted_precision=0.96, accepted_at_least=0.94,
)  # fmt: skip
NOTHING_DRAWN = GroupCertificate(
    labels=90, accepted=0, reviewed=0, errors=0, limit=0.05, bound=1, p_value=1, delta=0.04, tested=(),
    refusal="plan with more minutes",
)  # fmt: skip


COVERED = Covered(population="0a1b", labels=1090, images=400, plan=2, created="2026-01-01T00:00:00+00:00")


def certified(*groups: Group, **changes: Any) -> Certified:
    values: dict[str, Any] = {
        "run": "main", "workspace": "/w", "version": "certified-1-a", "precision": 0.95, "confidence": 0.9,
        "gate": "delivered", "look": 1, "delta": 0.08, "labels": 1500, "outside": 410, "accepted": 600,
        "groups": groups, "classes": (), "reviewers": Reviewers(), "simulated": False,
        "covers": (COVERED,),
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


def test_it_says_what_it_covers_and_what_it_assumes(lines):
    """The sentence names the labels of all its samples; labels outside are told to wait, where there are any."""
    first = (
        "policy certified-1-a accepts 600 of 1,500 labels (40%); it covers 1,090 labels of 400 images, as of 2026-01-01"
    )
    waiting = "; 410 labels are outside and wait for a top-up sample: vouch plan-reviews CAMPAIGN"
    assert first + waiting in lines(certified(CAT))
    assert first in lines(certified(CAT, outside=0))
    assert first + waiting.replace("410 labels are", "1 label is") in lines(certified(CAT, outside=1))
    later = COVERED.model_copy(update={"labels": 10, "images": 5, "created": "2026-02-03T00:00:00+00:00"})
    (both,) = (line for line in lines(certified(CAT, covers=(COVERED, later))) if "it covers" in line)
    assert "it covers 1,100 labels of 405 images, as of 2026-02-03" in both
    told = lines(certified(CAT, reviewers=Reviewers(assumed=0.05)))[0]
    assert "confidence 0.9, if reviewers miss at most 5% of the wrong labels; test 1" in told
    assert not any("if reviewers miss" in line for line in lines(certified(CAT)))


def test_an_extension_is_no_test_of_the_sample(lines):
    assert "; test 1, at level 0.08 for 1 group" in lines(certified(CAT))[0]
    assert lines(certified())[0].endswith("confidence 0.9; at level 0.08")


def test_after_a_simulated_reviewer_it_says_how_people_come_to_answer(lines):
    assert any("another workspace.uri" in line for line in lines(certified(CAT, simulated=True)))
    assert not any("another workspace.uri" in line for line in lines(certified(CAT)))


def confusion(classes: int, swapped: int) -> Confusion:
    """So many classes; of each, 9 labels are right, and as many of each pair of neighbours are swapped."""
    names = (*("labels" if number == 0 else f"class {number}" for number in range(classes)), "(background)")
    counts = [[0] * (classes + 1) for _ in names]
    for row in range(classes):
        counts[row][row] = 9
        counts[row][(row + 1) % classes] = swapped
    return Confusion(names=names, counts=tuple(map(tuple, counts)))


def test_few_classes_show_the_whole_matrix():
    (table,) = confusion(MOST_CELLS, 2).blocks("accepted")
    assert list(table.columns)[1:] == [row[0] for row in table.rows] == [*confusion(MOST_CELLS, 2).names]
    assert next(table.cells()) == ["labels", "9", "2", *[NONE] * (MOST_CELLS - 1)]


@pytest.mark.parametrize("swapped", [0, 3])
def test_many_classes_show_their_most_frequent_confusions(swapped):
    classes = MOST_PAIRS + 5
    *tables, line = confusion(classes, swapped).blocks("accepted")
    assert [len(table.rows) for table in tables] == ([MOST_PAIRS] if swapped else [])
    assert all(row[2] == swapped for table in tables for row in table.rows)
    assert line.startswith(f"accepted labels on an object of another class: {classes * swapped:,}, on no object or")


def test_thresholds_stand_below_each_other():
    rows = [SweepRow(threshold=value, labels=1, share=1, precision=None, recall=0.5) for value in (0.25, 0.5, 1)]
    curves = SignalCurves(labels=3, missing=1, sweep=tuple(rows), risk_coverage=(), aurc=None, reliability=None)
    sweep, missing, coverage = curves.blocks("sam_iou")
    assert isinstance(sweep, Table)
    assert list(sweep.cells())[1] == ["0.50", "1", "100%", NONE, "50.0%"]
    assert missing == "1 of 3 labels without sam_iou; no threshold keeps them"
    assert coverage == ("sam_iou: risk and coverage", coverage.columns, [])


SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("share", "words"), [(None, text.NONE), (1.0, "100%"), (0.0, "0%"), (0.95, "95%"), (0.848, "84.8%")]
)
def test_shares(share, words):
    assert text.pct(share) == words


@given(SHARES)
def test_bounds_are_never_rounded_in_their_favour(share):
    assert float(text.least(share)[:-1]) <= 100 * share + 1e-6
    assert float(text.most(share)[:-1]) >= 100 * share - 1e-6


@given(SHARES)
def test_nearly_all_is_not_all_and_hardly_any_is_not_none(share):
    assert (text.pct(share) == "100%") == (share == 1)
    assert (text.pct(share) == "0%") == (share == 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, words):
    assert text.duration(seconds) == words


def test_rules_are_spoken():
    assert text.rule("clip_probability >= 0.5, sam_iou >= 0.8") == "CLIP probability ≥ 0.5, SAM IoU ≥ 0.8"


def test_thresholds_are_cut():
    assert text.cut(0.9129) == "0.912"


# What the results of planning and reviewing say.


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"earlier": 12}, "nothing new: 12 answers are in the workspace already"),
        ({"earlier": 1}, "nothing new: 1 answer is in the workspace already"),
        ({}, "nothing new: there is no answer yet"),
        ({"answers": 2, "verdicts": 3, "earlier": 5}, "3 new verdicts of 2 answers came into the workspace"),
    ],
)
def test_a_pull_without_news_says_what_is_there_already(lines, counts, line):
    values = dict.fromkeys(("verdicts", "answers", "known", "earlier", "undone", "late"), 0) | counts
    assert lines(PullOutcome(**values, late_items=(), file="")) == [line]


@pytest.mark.parametrize(("own", "says"), [(False, "the usual pace"), (True, "the reviewers' own pace")])
def test_the_time_left_names_its_pace(lines, own, says):
    status = QueueStatus(
        queue="0123456789ab", run="main", purposes={}, reviewers={}, twice=0, agreement=None, hinted=1, edited=2,
        edit_iou=0.815, minutes_left=3, own_pace=own, unpulled=0, late=0,
    )  # fmt: skip
    assert lines(status)[1:] == [
        "before 1 answer the reviewer had asked what the models say",
        "2 boxes were corrected, with a median IoU of 0.81 of old and new",
        f"about 3 min 0 s left at {says}",
    ]


@pytest.fixture
def planned():
    """A plan of 100 audit tasks of which so many are open."""

    def make(still_open: int, simulated: int = 0) -> Planned:
        plan = ReviewPlan(
            number=3, run="main", created="2026-01-01T00:00:00+00:00", inputs={}, precision=0.95, confidence=0.9,
            gate="delivered", seed=0, fit_share=0.3, counts={"audit": 100}, seconds=1.6 * still_open, tasks_sha256="",
        )  # fmt: skip
        return Planned(
            stage="audit", plan=plan, open=still_open, simulated=simulated, words=(), next=("vouch run CAMPAIGN",)
        )

    return make


def test_open_tasks_are_counted_with_their_time(planned):
    assert planned(100).to_answer() == "100 to be answered, about 2 min 40 s at the usual pace"


@pytest.mark.parametrize(
    ("simulated", "text"),
    [
        (0, "60 were answered already"),
        (60, "60 were answered by a simulated reviewer already"),
        (20, "60 were answered already, 20 of them by a simulated reviewer"),
    ],
)
def test_what_has_an_answer_is_said_beside_what_is_open(planned, simulated, text):
    said = planned(40, simulated).to_answer()
    assert said == f"40 of 100 to be answered, about 1 min 4 s at the usual pace; {text}"


def test_a_plan_that_is_answered_already_says_so(lines, planned):
    assert lines(planned(0))[-2:] == [
        "0 to be answered: earlier verdicts answer every task of this plan already",
        "next 1: vouch run CAMPAIGN",
    ]
