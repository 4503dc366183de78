"""Makes the report of a campaign: gathers, keeps the figures, cuts the pictures, writes the page."""

import os
from collections.abc import Callable
from pathlib import Path

from schemas.campaign import Campaign
from schemas.errors import UserError
from schemas.report import Report
from tasks.report.collect import Collected, collect
from tasks.report.history import keep_report
from tasks.report.render import render
from tasks.report.thumbnails import thumbnails
from tasks.store.open import open_store


def make_report(
    campaign: Campaign,
    out: Path | None,
    truth_file: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Make a report; its figures are kept in the workspace, so that the next one can say what changed.

    Args:
        campaign: Has been run.
        out: The HTML file to write; None: none.
        truth_file: COCO ground truth to hold the labels against, if any.
        progress: Called with the number of images compared with the truth so far.

    Raises:
        UserError: The campaign has not been run yet, the truth does not fit it, or the file cannot be written.
        StoreError: The workspace cannot be read or written.
    """
    found = collect(campaign, truth_file, progress)
    found = Collected(keep_report(open_store(campaign.workspace), found.report), found.contents)
    if out is not None:
        pictures = thumbnails(found.report.pictures, open_store(campaign.source), campaign.source, found.contents)
        write_page(out, render(found.report, pictures))
    return found.report


def write_page(path: Path, page: str) -> None:
    """Write the page whole, or not at all.

    Raises:
        UserError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"--out: {path} cannot be written ({error.strerror}); choose another place") from error
