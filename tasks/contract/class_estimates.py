"""Estimates the precision of each class's accepted labels: for reading beside the certificates, never a promise."""

from collections.abc import Sequence

import numpy as np

from schemas.policy import ClassEstimate
from tasks.contract.declare import Candidates
from tasks.contract.judge import Judged, Reviewed
from tasks.statistics.bounds import shrunken_shares


def class_estimates(judged: Sequence[Judged], reviewed: Reviewed, candidates: Candidates) -> tuple[ClassEstimate, ...]:
    """Estimate each class of the certified groups, few labels being drawn towards the share of their group.

    A class of which no label was reviewed has no estimate: the share of its group says nothing of it.
    """
    found: list[ClassEstimate] = []
    names = np.array(reviewed.classes, dtype=np.str_)
    for one in judged:
        threshold = one.certificate.threshold
        if threshold is None:
            continue
        above = reviewed.scores >= threshold
        counts = np.array([int((above & (names == name)).sum()) for name in one.classes], np.int64)
        errors = np.array([int((above & reviewed.wrong & (names == name)).sum()) for name in one.classes], np.int64)
        shares = shrunken_shares(errors, counts)
        for name, count, wrong, share in zip(
            one.classes, counts.tolist(), errors.tolist(), shares.tolist(), strict=True
        ):
            inside = candidates.certify_side & (candidates.class_index == candidates.class_names.index(name))
            accepted = int((inside & (candidates.scores >= threshold)).sum())
            found.append(
                ClassEstimate(
                    name=name,
                    group=one.plan.name,
                    accepted=accepted,
                    reviewed=count,
                    errors=wrong,
                    precision=1 - share if accepted and count else None,
                )
            )
    return tuple(found)
