"""Draws an evaluation as PNG files, without a display and without matplotlib's global state."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.evaluation import AveragePrecision, Confusion, Evaluation, LabelQuality, SignalCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI: Final = 120
MOST_NAMED: Final = 12
"""Classes that a plot of curves still names one by one."""
MOST_COUNTED: Final = 30
"""Classes of a confusion matrix whose cells still hold their numbers."""

_SHARE: Final = (-0.02, 1.02)


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw precision over recall, and for every signal its sweep, risk-coverage curve and reliability; confusion last.

    Raises:
        UserError: The folder cannot be written.
    """
    written = [_write(folder / "precision_recall.png", partial(_precision_recall, found=evaluation.boxes))]
    for name, curves in evaluation.signals.items():
        draw: dict[str, Callable[[Axes], None]] = {
            "sweep": partial(_sweep, name=name, curves=curves),
            "risk_coverage": partial(_risk_coverage, name=name, curves=curves, evaluation=evaluation),
        }
        if curves.reliability is not None:
            draw["reliability"] = partial(_reliability, name=name, curves=curves)
        written += [_write(folder / f"{kind}_{name}.png", one) for kind, one in draw.items()]
    matrices = {
        "accepted": evaluation.confusion_accepted,
        "accepted_and_review": evaluation.confusion_accepted_and_review,
    }
    for name, matrix in matrices.items():
        side = min(24.0, 4 + 0.3 * len(matrix.names))
        title = f"{name.replace('_', ' ').replace('and', '+')} labels"
        draw_matrix = partial(_confusion, matrix=matrix, title=title)
        written.append(_write(folder / f"confusion_{name}.png", draw_matrix, (side + 1, side)))
    return written


def _write(path: Path, draw: "Callable[[Axes], None]", inches: tuple[float, float] = (7, 5)) -> Path:
    from matplotlib.figure import Figure

    # A figure of its own draws with the Agg backend, whatever the machine has.
    figure = Figure(figsize=inches, layout="constrained")
    draw(figure.add_subplot())
    try:
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder for --out") from error
    return path


def _precision_recall(axes: "Axes", found: AveragePrecision) -> None:
    curves = {name: one.precision_at_recall for name, one in found.classes.items() if one.precision_at_recall}
    recall = [place / 100 for place in range(101)]
    for name, precision in curves.items():
        named: dict[str, Any] = {"label": _plain(name)} if len(curves) <= MOST_NAMED else {"color": "0.7"}
        axes.plot(recall, precision, linewidth=1, **named)
    if curves:
        mean = [sum(points) / len(points) for points in zip(*curves.values(), strict=True)]
        axes.plot(recall, mean, color="black", linewidth=2.5, label=f"mean of {len(curves)} classes")
        axes.legend(fontsize="small")
    _frame(axes, "recall", "precision", "Precision over recall, boxes at IoU 0.5, all labels by detector_score")
    axes.set_xlim(*_SHARE)


def _sweep(axes: "Axes", name: str, curves: SignalCurves) -> None:
    thresholds = [row.threshold for row in curves.sweep]
    for what, style in (("precision", "-"), ("recall", "--"), ("share", ":")):
        values = [getattr(row, what) for row in curves.sweep]
        points = [float("nan") if value is None else value for value in values]
        axes.plot(thresholds, points, style, marker="o", markersize=3, label=what)
    if thresholds:
        axes.legend(fontsize="small")
    _frame(axes, f"least {name}", "share", f"Labels at or above a threshold on {name}")


def _risk_coverage(axes: "Axes", name: str, curves: SignalCurves, evaluation: Evaluation) -> None:
    points = curves.risk_coverage
    axes.plot([point.coverage for point in points], [point.precision for point in points], label=f"by {name}")
    accepted, share = evaluation.accepted, accepted_share(evaluation.accepted, evaluation.accepted_and_review)
    if accepted.precision is not None and share is not None:
        axes.plot([share], [accepted.precision], "o", color="black", label=f"accepted by {_plain(evaluation.policy)}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    area = "" if curves.aurc is None else f" (area under 1 - precision: {curves.aurc:.4f})"
    _frame(axes, "share of labels kept, best first", "precision", f"Risk and coverage of {name}{area}")
    axes.set_xlim(*_SHARE)


def accepted_share(accepted: LabelQuality, everything: LabelQuality) -> float | None:
    """Share of the labels that were accepted, those on crowd regions aside; None without labels."""
    counted = everything.correct + everything.wrong
    return (accepted.correct + accepted.wrong) / counted if counted else None


def _reliability(axes: "Axes", name: str, curves: SignalCurves) -> None:
    found = curves.reliability
    if found is None:
        raise ValueError(f"{name} has no reliability")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    scores, precisions = [one.score for one in found.bins], [one.precision for one in found.bins]
    axes.plot(scores, precisions, marker="o", markersize=4)
    title = f"Reliability of {name}: equal-mass ECE {found.ece:.4f}"
    _frame(axes, f"mean {name} of a bin", "precision of the bin", title)
    axes.set_xlim(*_SHARE)


def _confusion(axes: "Axes", matrix: Confusion, title: str) -> None:
    sums = [max(1, sum(column)) for column in zip(*matrix.counts, strict=True)]
    shares = [[count / total for count, total in zip(row, sums, strict=True)] for row in matrix.counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names, places = [_plain(name) for name in matrix.names], range(len(matrix.names))
    axes.set_xticks(list(places), names, rotation=90, fontsize="small")
    axes.set_yticks(list(places), names, fontsize="small")
    if len(names) <= MOST_COUNTED:
        for row in places:
            for column in places:
                if count := matrix.counts[row][column]:
                    color = "white" if shares[row][column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=color)
    axes.set_xlabel("true class")
    axes.set_ylabel("labelled as")
    axes.set_title(f"Confusion of {title}; shade: share of the column", fontsize="medium")


def _frame(axes: "Axes", across: str, up: str, title: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(title, fontsize="medium")
    axes.set_ylim(*_SHARE)
    axes.grid(alpha=0.3)


def _plain(name: str) -> str:
    """A name whose dollar signs start no formula, and whose underscore hides it from no legend."""
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")
