"""Renders the tables of `vouch evaluate` and `bench`."""

from typing import Final

from rich.console import Console
from rich.table import Table

from vouch_labels.flows.console.output import printable, say, table_of
from vouch_labels.schemas.evaluation import (
    BenchReport,
    Confusion,
    ContractTruth,
    Evaluation,
    GroupTruth,
    Reliability,
    RiskPoint,
    SignalCurves,
    TruePrecision,
)

MOST_CELLS: Final = 8
"""Classes of a confusion matrix that is still shown whole; of larger ones the most frequent confusions are."""
MOST_PAIRS: Final = 15
COVERAGE_ROWS: Final = 10

_LEFT: Final = {
    "without_truth": "labelled images are not in the truth",
    "not_labelled": "images of the truth have not been labelled",
    "ambiguous": "labelled images fit no file_name alone",
    "other_size": "images have another size in the truth",
}

MEBIBYTE: Final = 1 << 20


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print what was compared, and the figures."""
    _print_pairs(console, evaluation)
    _show(console, "COCO average precision of all labels, by detector_score", _average_precision_table(evaluation))
    _show(console, f"labels at IoU {evaluation.iou_threshold}", _quality_table(evaluation))
    if evaluation.contract is not None:
        print_contract(console, evaluation.contract)
    _show(console, "average precision by class", _class_ap_table(evaluation))
    _show(console, "labels by class: of accepted alone, then of accepted + review", _class_quality_table(evaluation))
    for name, curves in evaluation.signals.items():
        _print_curves(console, name, curves)
    _print_confusion(console, "accepted", evaluation.confusion_accepted)
    _print_confusion(console, "accepted + review", evaluation.confusion_accepted_and_review)


def _print_pairs(console: Console, evaluation: Evaluation) -> None:
    images, classes = evaluation.images, evaluation.classes
    how = "by file_name" if images.rule == "file_name" else "by the last parts of their paths"
    say(console, f"run {evaluation.run} against {evaluation.truth}")
    say(console, f"{images.evaluated:,} images compared, paired {how}; {len(classes.common):,} classes, by name")
    for why, words in _LEFT.items():
        if count := getattr(images, why):
            shown = ", ".join(images.examples.get(why, ()))
            say(console, f"left out: {count:,} {words}: {shown}{' ...' if count > 3 else ''}")
    alone = {"classes of the run": classes.without_truth, "categories of the truth": classes.not_labelled}
    for what, left in alone.items():
        if left:
            shown = ", ".join(f"{name} ({count:,})" for name, count in list(left.items())[:MOST_PAIRS])
            say(console, f"left out: {len(left):,} {what} alone: {shown}{' ...' if len(left) > MOST_PAIRS else ''}")
    if evaluation.crowds:
        say(console, f"{evaluation.crowds:,} crowd regions: what lies on them is neither right nor wrong")
    if not evaluation.accepted_and_review.labels:
        say(console, "there are no labels of these classes on these images; what needs one is left empty")
    if evaluation.masks is None:
        missing = evaluation.masks_missing
        why = f"{missing:,} annotations have no mask" if missing else "the truth has no annotation here"
        say(console, f"masks are not compared: {why}")


def _average_precision_table(evaluation: Evaluation) -> Table:
    table = table_of("", "mAP", "AP50", "AP75", "AR100")
    for name, found in (("boxes", evaluation.boxes), ("masks", evaluation.masks)):
        if found is not None:
            table.add_row(name, *map(_share, (found.map, found.ap50, found.ap75, found.ar100)))
    return table


def _quality_table(evaluation: Evaluation) -> Table:
    table = table_of("", "labels", "correct", "wrong", "ignored", "objects", "precision", "recall")
    rows = {"accepted": evaluation.accepted, "accepted + review": evaluation.accepted_and_review}
    for name, found in rows.items():
        counts = (found.labels, found.correct, found.wrong, found.ignored, found.objects)
        table.add_row(name, *(f"{count:,}" for count in counts), _share(found.precision), _share(found.recall))
    return table


def print_contract(console: Console, contract: ContractTruth) -> None:
    """Print what a certified policy promised, and what is true."""
    promise = (
        f"at least {contract.precision:g} of the {contract.gate} labels correct, confidence {contract.confidence:g}"
    )
    whose = ", certified by a simulated reviewer" if contract.simulated else ""
    _show(console, f"contract of {contract.policy}{whose}: {promise}", _contract_table(contract))
    answer = {
        None: "nothing was accepted, so nothing was promised",
        True: "the contract held",
        False: f"the contract is BROKEN; chance alone does that in up to {1 - contract.confidence:.0%} of campaigns",
    }[contract.held]
    say(
        console,
        f"{answer}. Precision A: of the accepted labels; B: of those delivered, wrong ones under review removed.",
    )
    for why, count in contract.without_truth.items():
        say(console, f"left out of the contract: {count:,} labels, {why}")


def _contract_table(contract: ContractTruth) -> Table:
    table = table_of("group", "labels", "accepted", "automation", "precision A", "precision B", "certified", "kept")
    rows: list[tuple[str, TruePrecision]] = [(group.name, group) for group in contract.groups]
    rows += [("certified side", contract.certified_side), ("whole run", contract.whole_run)]
    for name, found in rows:
        cells = [f"{found.labels:,}", f"{found.accepted:,}"]
        cells += map(_share, (found.automation, found.accepted_precision, found.delivered_precision))
        if isinstance(found, GroupTruth):
            cells += [_share(found.certified), {None: "-", True: "yes", False: "NO"}[found.kept]]
        table.add_row(printable(name), *cells)
    return table


def _class_ap_table(evaluation: Evaluation) -> Table:
    table = table_of("class", "objects", "AP", "AP50", "mask AP", "mask AP50")
    for name, boxes in evaluation.boxes.classes.items():
        masks = evaluation.masks.classes[name] if evaluation.masks is not None else None
        values = [boxes.ap, boxes.ap50, *((masks.ap, masks.ap50) if masks is not None else (None, None))]
        table.add_row(printable(name), f"{boxes.objects:,}", *map(_share, values))
    return table


def _class_quality_table(evaluation: Evaluation) -> Table:
    table = table_of("class", "accepted", "precision", "recall", "all", "precision", "recall")
    for name, everything in evaluation.accepted_and_review.classes.items():
        cells: list[str] = []
        for found in (evaluation.accepted.classes[name], everything):
            cells += [f"{found.labels:,}", _share(found.precision), _share(found.recall)]
        table.add_row(printable(name), *cells)
    return table


def _print_curves(console: Console, name: str, curves: SignalCurves) -> None:
    _show(console, f"{name}: labels at or above a threshold, of accepted + review", _sweep_table(name, curves))
    if curves.missing:
        say(console, f"{curves.missing:,} of {curves.labels:,} labels have no {name}; no threshold keeps them")
    area = "" if curves.aurc is None else f", area under risk {curves.aurc:.4f}"
    _show(console, f"{name}: risk and coverage{area}", _coverage_table(name, curves))
    if curves.reliability is not None:
        title = f"{name}: reliability, equal-mass ECE {curves.reliability.ece:.4f}"
        _show(console, title, _reliability_table(name, curves.reliability))


def _sweep_table(name: str, curves: SignalCurves) -> Table:
    table = table_of(f"least {name}", "labels", "share", "precision", "recall")
    digits = max((len(f"{row.threshold:.10g}".partition(".")[2]) for row in curves.sweep), default=0)
    for row in curves.sweep:
        values = map(_share, (row.share, row.precision, row.recall))
        table.add_row(f"{row.threshold:.{digits}f}", f"{row.labels:,}", *values)
    return table


def _coverage_table(name: str, curves: SignalCurves) -> Table:
    table = table_of("share kept, best first", "precision", f"least {name}")
    shown: list[RiskPoint] = []
    for row in range(1, COVERAGE_ROWS + 1):
        wanted = row / COVERAGE_ROWS - 1e-9
        point = next((point for point in curves.risk_coverage if point.coverage >= wanted), None)
        if point is not None and point not in shown:
            shown.append(point)
            table.add_row(_share(point.coverage), _share(point.precision), f"{point.threshold:.4g}")
    return table


def _reliability_table(name: str, found: Reliability) -> Table:
    table = table_of(f"mean {name}", "labels", "precision")
    for one in found.bins:
        table.add_row(f"{one.score:.3f}", f"{one.labels:,}", _share(one.precision))
    return table


def _print_confusion(console: Console, what: str, matrix: Confusion) -> None:
    names = [printable(name) for name in matrix.names]
    if len(names) <= MOST_CELLS + 1:
        table = table_of("labelled as", *names)
        for name, counts in zip(names, matrix.counts, strict=True):
            table.add_row(name, *(f"{count:,}" if count else "." for count in counts))
        _show(console, f"confusion of {what} labels: rows are labels, columns the truth", table)
        return
    background = len(names) - 1
    # What was missed, or on nothing, is in the tables above; here it would hide the rest.
    pairs = sorted(
        (-matrix.counts[row][column], row, column)
        for row in range(background)
        for column in range(background)
        if row != column and matrix.counts[row][column]
    )
    table = table_of("labelled as", "true class", "labels")
    for count, row, column in pairs[:MOST_PAIRS]:
        table.add_row(names[row], names[column], f"{-count:,}")
    if pairs:
        _show(console, f"most frequent confusions of {what} labels", table)
    swapped, nowhere = -sum(count for count, _, _ in pairs), sum(counts[background] for counts in matrix.counts)
    say(
        console,
        f"of {what} labels {swapped:,} are on an object of another class and {nowhere:,} on no object or on one found "
        f"already; {sum(matrix.counts[background]):,} objects were not found",
    )


def _show(console: Console, title: str, table: Table) -> None:
    """A table under its title, which is a line of its own: a table's title would be wrapped to its width."""
    say(console, f"\n{title}")
    console.print(table)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def print_bench(console: Console, report: BenchReport) -> None:
    """Print the speed, the share of each step, memory, and the bottleneck last."""
    failed = f", {report.failed} of them failed" if report.failed else ""
    repeated = f" ({report.distinct} different ones, again and again)" if report.distinct < report.images else ""
    say(console, f"{report.images} images of {report.source}{repeated}{failed}; {report.labels} labels")
    table = table_of("step", "time", "share")
    for step in report.steps:
        table.add_row(step.name, f"{step.seconds:.2f} s", f"{step.share:.1%}")
    console.print(table)
    say(
        console,
        f"models on {report.device}, {report.precision}, engine {report.engine}; {report.cpu_threads} CPU threads; "
        f"an image takes one of {report.fetch_threads} threads {report.fetching_ms:.1f} ms to fetch and "
        f"{report.decoding_ms:.1f} ms to decode",
    )
    memory = f"memory: {report.peak_bytes / MEBIBYTE:,.0f} MiB on the host"
    if report.gpu_peak_bytes is not None and report.gpu_busy is not None:
        memory += f", {report.gpu_peak_bytes / MEBIBYTE:,.0f} MiB on the GPU, which computed {report.gpu_busy:.0%}"
    say(console, memory)
    say(console, f"speed: {report.images_per_second:.2f} images/s from the file to the written labels")
    say(console, f"bottleneck: {report.bottleneck}")
