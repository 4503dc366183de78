"""What the results of evaluation say."""

import pytest

from vouch_labels.schemas.evaluation import MOST_CELLS, MOST_PAIRS, Confusion, SignalCurves, SweepRow
from vouch_labels.schemas.text import NONE, Table


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
    assert line.startswith(f"of accepted labels {classes * swapped:,} are on an object of another class and 0 on no")


def test_thresholds_stand_below_each_other():
    rows = [SweepRow(threshold=value, labels=1, share=1, precision=None, recall=0.5) for value in (0.25, 0.5, 1)]
    curves = SignalCurves(labels=3, missing=1, sweep=tuple(rows), risk_coverage=(), aurc=None, reliability=None)
    sweep, missing, coverage = curves.blocks("sam_iou")
    assert isinstance(sweep, Table)
    assert list(sweep.cells())[1] == ["0.50", "1", "100%", NONE, "50.0%"]
    assert missing == "1 of 3 labels have no sam_iou; no threshold keeps them"
    assert coverage == ("sam_iou: risk and coverage", coverage.columns, [])
