"""Writes an evaluation into a folder: figures and plots."""

from pathlib import Path

from schemas.errors import UserError
from schemas.evaluation import Evaluation
from tasks.evaluate.plots import write_plots

FILE = "evaluation.json"


def check_folder(folder: Path) -> None:
    """Make the folder, so that a wrong one is known before the work.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {folder} is no folder ({error.strerror}); choose another one") from error


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write evaluation.json and the plots; files of an earlier evaluation are replaced.

    Raises:
        UserError: The folder cannot be written.
    """
    check_folder(folder)
    path = folder / FILE
    try:
        path.write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder for --out") from error
    return [path, *write_plots(evaluation, folder)]
