"""Many draws of reviews on one labelled run: what they certify, what is true, and what the detector alone allows."""

from dataclasses import replace

import numpy as np

from tasks.certify.data import Promise
from tasks.labels.arrays import SIGNALS
from tasks.simulate.simulate import Board, Draw, play

GATES = {"A": "accepted", "B": "delivered"}


def draw_figures(
    board: Board, precisions: tuple[float, ...], confidence: float, reviews: int, draws: int
) -> dict[tuple[float, str], dict[str, float]]:
    """Play so often.

    Returns:
        Precision and gate -> figures.
    """
    promises = [
        Promise(precision, confidence, "accepted" if gate == "A" else "delivered")
        for precision in precisions
        for gate in GATES
    ]
    ours = [play(board, promises, reviews, number) for number in range(draws)]
    alone = [play(score_alone(board), promises, reviews, number) for number in range(draws)]
    found = {}
    for place, promise in enumerate(promises):
        gate = next(name for name, words in GATES.items() if words == promise.gate)
        one = _figures([draw[place] for draw in ours])
        one["score_alone_automation"] = float(np.mean([draw[place].automation for draw in alone]))
        one["score_alone_oracle"] = float(np.mean([draw[place].oracle for draw in alone]))
        found[promise.precision, gate] = one
    return found


def score_alone(board: Board) -> Board:
    """The same labels with the detector score as their only signal, ranked as it is: without offsets of classes."""
    labels = board.labels
    signals = np.zeros_like(labels.signals)
    score = SIGNALS.index("detector_score")
    signals[:, score] = labels.signals[:, score]
    classes = np.zeros_like(labels.class_index)
    return replace(board, labels=replace(labels, signals=signals, class_index=classes, class_names=("any",)))


def _figures(draws: list[Draw]) -> dict[str, float]:
    automation = [draw.automation for draw in draws]
    found = {
        "broken": float(np.mean([draw.broken for draw in draws])),
        "automation": float(np.mean(automation)),
        "automation_tenth": float(np.quantile(automation, 0.1, method="inverted_cdf")),
        "automation_worst": min(automation),
        "oracle": float(np.mean([draw.oracle for draw in draws])),
        "naive_broken": float(np.mean([draw.naive_broken for draw in draws])),
        "naive_automation": float(np.mean([draw.naive for draw in draws])),
    }
    seconds = [draw.seconds_per_box for draw in draws if draw.seconds_per_box is not None]
    if seconds:
        found["seconds_per_box"] = float(np.mean(seconds))
    for name in ("accepted_precision", "delivered_precision"):
        known = [value for draw in draws if draw.automation and (value := getattr(draw, name)) is not None]
        if known:
            found |= {f"{name}_median": float(np.median(known)), f"{name}_worst": min(known)}
    return found
