"""Measures the bundled models and writes EVALUATION.md: `python -m starter.evaluate`."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from schemas.errors import UserError
from starter.command import exit_code
from starter.evaluation.report import ROWS, report
from starter.train.card import update_card

_PARTS = ("detector", "segmenter", "scorer", "speed")


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements.

    Args:
        arguments: Command line; sys.argv's by default.

    Returns:
        The exit code: 0, or that of the error, which goes to stderr in one line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=150, help="scenes a measurement")
    parser.add_argument("--only", choices=_PARTS, action="append", help="measure this part; several times for several")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("EVALUATION.md"))
    parser.add_argument("--cards", type=Path, help="folder of model cards whose figures are brought up to date")
    options = parser.parse_args(arguments)

    def work() -> str:
        figures: dict[str, float] = {}
        for part in options.only or _PARTS:
            found = _measure(part)(options.scenes)
            figures |= {f"{part}.{name}": value for name, value in found.items()}
            sys.stdout.writelines(f"{words}: {value}\n" for words, value in _rows(part, figures).items())
            sys.stdout.flush()
        try:
            options.out.write_text(report(figures, options.scenes, _machine()), encoding="utf-8")
            if options.cards:
                _update_cards(options.cards, figures, options.scenes)
        except OSError as error:
            raise UserError(f"cannot write {error.filename}: {error.strerror or error}; choose another path") from error
        return f"written to {options.out}"

    return exit_code(work)


def _measure(part: str) -> Callable[[int], dict[str, float]]:
    """The measurement of a part; each loads packages that the others do not need."""
    if part == "detector":
        from starter.evaluation.detector import measure_detector

        return measure_detector
    if part == "segmenter":
        from starter.evaluation.segmenter import measure_segmenter

        return measure_segmenter
    if part == "scorer":
        from starter.evaluation.scorer import measure_scorer

        return measure_scorer
    from starter.evaluation.speed import measure_speed

    return measure_speed


def _update_cards(folder: Path, figures: Mapping[str, float], scenes: int) -> None:
    for part in ("detector", "segmenter", "scorer"):
        rows = _rows(part, figures)
        if rows:
            update_card(folder / f"{part}.md", "figures", {**rows, "scenes a figure": str(scenes)})


def _rows(part: str, figures: Mapping[str, float]) -> dict[str, str]:
    """The figures of a part in words, the other emoji style's last."""
    keys = {row.key: row.words for row in ROWS} | {row.other: f"another emoji style: {row.words}" for row in ROWS}
    return {
        words: f"{figures[key]:.3f}" for key, words in keys.items() if key.startswith(f"{part}.") and key in figures
    }


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"a machine with {cores} CPU cores"


if __name__ == "__main__":
    sys.exit(main())
