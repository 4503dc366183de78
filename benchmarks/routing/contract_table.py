"""Is the promise kept in every world, and how much is automated? Against an oracle and the naive rule."""

from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.campaigns import Options
from benchmarks.harness import Table

if TYPE_CHECKING:
    from benchmarks.routing.contract import Kept, World

DRAWS: Final = 1_000
GATES: Final = ("A", "B")
FLOORS: Final = {"A": 0.80, "B": 0.85}
"""Least automation at T = .95 in the plain world, as a share of the ideal one."""
SCORE_FLOOR: Final = 1.25


def measure(options: Options) -> Table:
    """Play campaigns in every world, and hold each against the truth."""
    from benchmarks.routing.contract import DELTA, FIT_REVIEWS, PLANTED, REVIEWS

    draws = 3 if options.quick else DRAWS
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for world in _worlds():
        for (precision, gate), cells in _summary(world, draws).items():
            name = f"{world.name}, T {precision:.2f}, {gate}"
            rows.append([name, *_cells(cells, draws)])
            figures |= {f"{name}: {key}": value for key, value in cells.items()}
    limit = DELTA + 2 * float(np.sqrt(DELTA * (1 - DELTA) / draws))
    rows += [_worst(gate, figures, draws) for gate in GATES]
    rows += [_floor(gate, limit) for gate in GATES]
    figures["violations_limit"] = limit
    return Table(
        title=f"the contract in made-up worlds, {draws:,} draws each, delta {DELTA:.2f}",
        columns=[
            "world, T, gate",
            "broken ± SE",
            "accepted",
            "of ideal",
            "of same score",
            ": score alone",
            "naive broken",
            "naive accepted",
            "trusting broken",
        ],
        rows=rows,
        notes=[
            f"A draw is a batch of about 40,000 labels (10,000 where a world lies at the boundary) with {REVIEWS:,} "
            f"reviews, {FIT_REVIEWS} of them for fitting; the others are drawn uniformly for B, guided for A.",
            "Broken: share of draws in which something was accepted and its true precision (B: that of what is "
            "delivered) is below T; grouped: in any group. Accepted: mean share of all labels of the batch, nothing "
            "accepted counted as 0, and so are labels in the images used for fitting.",
            "Ideal: the best threshold for one who knows every label and ranks by the true posterior; of same score: "
            "for one who knows every label and ranks as we do.",
            "Score alone: our share accepted over that of the same gate with the detector score as its only signal; "
            "'none' where that one accepts nothing.",
            "Naive: the loosest threshold at which the certification reviews look good enough.",
            f"Tired: reviewers miss a share of wrong labels that grows as these get rarer, and {PLANTED} known-wrong "
            "labels (for B twice as many) measure it, on top of the reviews; trusting: the same gate without that.",
            "Worst: over all rows for what is broken; over the informative worlds with trusted reviewers and one "
            "promise, at T = .95, for the rest. Floors for what is accepted are those of the plain world.",
            "Just below T: all labels alike, 5% more of them wrong than allowed; just above: 40% fewer.",
            "Other work ran on the machine meanwhile; no figure of this table is a time.",
        ],
        figures=figures,
    )


def _worlds() -> "list[World]":
    from scipy.special import logit

    from benchmarks.routing.contract import PRECISIONS, World

    one_kind = (1.0, 0.0, 0.0, 0.0)
    found = [
        World("plain", kinds=one_kind),
        World("four kinds of errors"),
        World("ICC .15", spread=0.76),
        World("ICC .30", spread=1.19),
        World("absent classes, ICC .15", spread=0.76, absent_images=0.08, base=1.3),
        World("duplicates and parts", kinds=(0.2, 0.1, 0.25, 0.45)),
        World("grouped, 40 Zipf classes", classes=40, grouped=True),
        World("tired reviewers", tired=True),
    ]
    for precision in PRECISIONS:
        for name, factor in (("just below T", 1.05), ("just above T", 0.6)):
            base = float(logit(1 - factor * (1 - precision)))
            found.append(World(name, images=2_000, base=base, kinds=one_kind, informative=False, only=precision))
    return found


def _summary(world: "World", draws: int) -> dict[tuple[float, str], dict[str, float]]:
    """Figures of a world by T and gate."""
    from benchmarks.routing.contract import play

    played = [play(world, number) for number in range(draws)]
    found = {}
    for precision in sorted({precision for _, precision in played[0]}):
        for gate in GATES:
            cells = _figures("", _results(gate, precision, played))
            for rule in ("ideal", "oracle", "score", "naive", "trusting"):
                cells |= _figures(f"{rule} ", _results(f"{gate} {rule}", precision, played))
            found[precision, gate] = cells
    return found


def _results(rule: str, precision: float, played: "list[dict[tuple[str, float], Kept]]") -> "list[Kept]":
    return [one[rule, precision] for one in played if (rule, precision) in one]


def _figures(name: str, results: "list[Kept]") -> dict[str, float]:
    if not results:
        return {}
    automated, broken = np.array(results, np.float64).T
    return {f"{name}accepted": float(automated.mean()), f"{name}broken": float(broken.mean())}


def _cells(cells: dict[str, float], draws: int) -> list[str]:
    broken, accepted = cells["broken"], cells["accepted"]
    error = float(np.sqrt(broken * (1 - broken) / draws))
    alone = cells.get("score accepted")
    return [
        f"{broken:.3f} ± {error:.3f}",
        f"{accepted:.3f}",
        _ratio(accepted, cells["ideal accepted"]),
        _ratio(accepted, cells["oracle accepted"]),
        "" if alone is None else f"{accepted / alone:.2f}" if alone >= 0.0005 else "none",
        f"{cells['naive broken']:.3f}",
        f"{cells['naive accepted']:.3f}",
        f"{cells['trusting broken']:.3f}" if "trusting broken" in cells else "",
    ]


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole >= 0.0005 else ""


def _worst(gate: str, figures: dict[str, float], draws: int) -> list[str]:
    """The worst of every column."""
    ours = [name.removesuffix(": broken") for name in figures if name.endswith(f", {gate}: broken")]
    broken = max(figures[f"{name}: broken"] for name in ours)
    error = float(np.sqrt(broken * (1 - broken) / draws))
    compared = [name for name in ours if f"{name}: score accepted" in figures]

    def least(other: str) -> float:
        return min(
            figures[f"{name}: accepted"] / max(figures[f"{name}: {other} accepted"], 0.0005) for name in compared
        )

    return [
        f"worst, {gate}",
        f"{broken:.3f} ± {error:.3f}",
        f"{min(figures[f'{name}: accepted'] for name in compared):.3f}",
        f"{least('ideal'):.0%}",
        f"{least('oracle'):.0%}",
        f"{least('score'):.2f}",
        f"{max(figures[f'{name}: naive broken'] for name in ours):.3f}",
        "",
        "",
    ]


def _floor(gate: str, limit: float) -> list[str]:
    return [f"floor, {gate}", f"≤ {limit:.3f}", "", f"{FLOORS[gate]:.0%}", "", f"{SCORE_FLOOR:.2f}", "", "", ""]
