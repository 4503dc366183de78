"""Is the promise kept on labels of the bundled models, seen style and harder style, through the real pipeline?"""

from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.harness.table import Table
from benchmarks.options import Options

IMAGES: Final = 1_200
DRAWS: Final = 500
CAMPAIGNS: Final = 20
REVIEWS: Final = 800
PRECISIONS: Final = (0.9, 0.95, 0.98)
CONFIDENCE: Final = 0.9
SCORE_FLOOR: Final = 1.25
SECONDS_FLOOR: Final = 3.0
_NONE: Final = 0.0005
"""A share that rounds to nothing."""


def measure(options: Options) -> Table:
    """Label scenes of both styles, and review them many times with a simulated reviewer."""
    import tempfile

    from benchmarks.routing.starter_runs import kept_folder

    if not options.quick:
        return _measure(kept_folder(), IMAGES, DRAWS, CAMPAIGNS)
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        return _measure(Path(folder), 24, 3, 1)


def _measure(folder: Path, images: int, draws: int, campaigns: int) -> Table:
    from benchmarks.routing.starter_campaigns import play_commands
    from benchmarks.routing.starter_draws import draw_figures
    from benchmarks.routing.starter_runs import SEED, STYLES, starter_run
    from tasks.evaluate.run_truth import truth_of_campaign
    from tasks.simulate.reviewer import PERFECT
    from tasks.simulate.simulate import board

    rows: list[list[str]] = []
    notes: list[str] = []
    figures: dict[str, float] = {}
    for style, words in STYLES.items():
        run = starter_run(folder, style, images)
        labels, truth = truth_of_campaign(run.campaign, run.truth)
        played = board(labels, truth, PERFECT)
        notes.append(
            f"{words}: {labels.count:,} labels of {images:,} scenes, {truth.correct.mean():.1%} of them correct."
        )
        for (precision, gate), found in draw_figures(played, PRECISIONS, CONFIDENCE, REVIEWS, draws).items():
            name = f"{words}, T {precision:.2f}, {gate}"
            rows.append([name, *_cells(found, draws)])
            figures |= {f"{name}: {key}": value for key, value in found.items()}
        for precision in PRECISIONS:
            found = play_commands(run, labels.count, precision, CONFIDENCE, REVIEWS, campaigns)
            name = f"{words}, T {precision:.2f}, B, commands"
            rows.append([name, *_cells(found, campaigns)])
            figures |= {f"{name}: {key}": value for key, value in found.items()}
    limit = 1 - CONFIDENCE + 2 * float(np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / draws))
    figures["violations_limit"] = limit
    rows.append(_worst(figures, draws))
    rows.append(["floor", f"≤ {limit:.3f}", "", "", "", "", f"{SCORE_FLOOR:.2f}", "", "", f"≤ {SECONDS_FLOOR:.1f}"])
    return Table(
        title=f"the contract on labels of the bundled models, {draws:,} draws each, delta {1 - CONFIDENCE:.2f}",
        columns=[
            "scenes, T, gate",
            "broken ± SE",
            "accepted",
            "9 of 10",
            "precision A, B",
            "of same score",
            ": score alone",
            "naive broken",
            "naive accepted",
            "s a box",
        ],
        rows=rows,
        notes=[
            *notes,
            f"Scenes of world {SEED}, which no training and no choice has seen; detector.min_score 0.25, all else as "
            "by default. The harder style is one that no training scene shows.",
            f"A draw is {REVIEWS:,} reviews by a simulated reviewer who knows the truth, at most 400 of them for "
            "fitting, on the same labels: split, first sample, calibrator, groups, certification sample and gate as "
            "`vouch plan-reviews` and `vouch certify` have them. Accepted: share of all labels, nothing certified as 0 "
            "and images kept for fitting as not accepted; mean, and what nine draws in ten reach.",
            "Commands: whole campaigns by the functions of the commands, from review plans and verdict files to the "
            "policy and its decisions in the workspace; held against the truth as `vouch evaluate` does.",
            "Precision A, B: true, of the accepted and of the delivered labels, median of the draws that accepted any.",
            "Of same score: share accepted over that of the best threshold for one who knows every label, ranks as we "
            "do and keeps no image for fitting.",
            "Score alone: share accepted over that of the same procedure with the detector score as the only signal; "
            "'none' where that one accepts nothing. In brackets what is possible at most: the same of those who know "
            "every label.",
            "Naive: the loosest threshold at which as many reviewed labels look good enough.",
            "S a box: seconds for the reviews and for all routed labels, over delivered boxes.",
            "Worst: over all rows; of score alone where both accept something.",
            "Other work ran on the machine meanwhile; no figure of this table is a time.",
        ],
        figures=figures,
    )


def _cells(found: dict[str, float], draws: int) -> list[str]:
    broken = found["broken"]
    error = float(np.sqrt(broken * (1 - broken) / draws))
    precisions = [found.get(f"{name}_precision_median") for name in ("accepted", "delivered")]
    return [
        f"{broken:.3f} ± {error:.3f}",
        f"{found['automation']:.3f}",
        f"{found['automation_tenth']:.3f}",
        ", ".join("-" if value is None else f"{value:.3f}" for value in precisions),
        f"{found['automation'] / found['oracle']:.0%}" if found.get("oracle", 0) > _NONE else "",
        _alone(found),
        f"{found['naive_broken']:.3f}" if "naive_broken" in found else "",
        f"{found['naive_automation']:.3f}" if "naive_automation" in found else "",
        f"{found['seconds_per_box']:.2f}" if "seconds_per_box" in found else "",
    ]


def _alone(found: dict[str, float]) -> str:
    if "score_alone_automation" not in found:
        return ""
    most = found["oracle"] / found["score_alone_oracle"] if found["score_alone_oracle"] > _NONE else float("inf")
    if found["automation"] <= _NONE:
        return "-"
    if found["score_alone_automation"] <= _NONE:
        return f"none ({most:.2f})"
    return f"{found['automation'] / found['score_alone_automation']:.2f} ({most:.2f})"


def _worst(figures: dict[str, float], draws: int) -> list[str]:
    """The worst of every column over the rows of draws."""

    def of(key: str) -> dict[str, float]:
        end = f": {key}"
        found = {name.removesuffix(end): value for name, value in figures.items() if name.endswith(end)}
        return {name: value for name, value in found.items() if "commands" not in name}

    broken, automation, alone = of("broken"), of("automation"), of("score_alone_automation")
    most = max(broken.values())
    ratios = [automation[name] / alone[name] for name in automation if min(automation[name], alone[name]) > _NONE]
    shares = [automation[name] / value for name, value in of("oracle").items() if value > _NONE]
    return [
        "worst",
        f"{most:.3f} ± {float(np.sqrt(most * (1 - most) / draws)):.3f}",
        f"{min(automation.values()):.3f}",
        f"{min(of('automation_tenth').values()):.3f}",
        "",
        f"{min(shares, default=0):.0%}",
        f"{min(ratios):.2f}" if ratios else "",
        f"{max(of('naive_broken').values()):.3f}",
        "",
        f"{max(of('seconds_per_box').values(), default=0):.2f}",
    ]
