"""The classes of a run: how many labels, how many accepted, and how good these seem."""

import numpy as np

from schemas.report import ClassReport
from tasks.labels.arrays import RunLabels
from tasks.report.reviewed import Reviewed
from tasks.statistics.bounds import shrunken_shares


def class_reports(labels: RunLabels, reviewed: Reviewed) -> tuple[ClassReport, ...]:
    """Describe every class, the one with the most labels first."""
    names = labels.class_names
    counts, accepted = (
        np.bincount(labels.class_index[chosen], minlength=len(names))
        for chosen in (np.ones(labels.count, np.bool_), labels.accepted)
    )
    use = labels.accepted[reviewed.rows]
    place = labels.class_index[reviewed.rows[use]]
    drawn = np.bincount(place, minlength=len(names))
    wrong = np.bincount(place, reviewed.wrong[use], minlength=len(names)).astype(np.int64)
    precision = 1 - shrunken_shares(wrong, drawn)
    order = np.lexsort((np.arange(len(names)), -counts))
    return tuple(
        ClassReport(
            name=names[row],
            labels=int(counts[row]),
            accepted=int(accepted[row]),
            reviewed=int(drawn[row]),
            wrong=int(wrong[row]),
            precision=float(precision[row]) if accepted[row] and drawn.any() else None,
        )
        for row in order.tolist()
    )
