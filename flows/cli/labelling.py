"""Runs a campaign with its progress on the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

from flows.console.streams import Terminal

if TYPE_CHECKING:
    from schemas.records import RunSummary


def label(campaign: Path, terminal: Terminal, *, plain: bool, retry_failed: bool, export: bool) -> "RunSummary":
    """Run a campaign.

    Args:
        campaign: Its file.
        terminal: Gets the progress, on standard error.
        plain: Lines instead of a bar.
        retry_failed: Whether images that failed are tried once more.
        export: Whether the data set is written at the end.

    Returns:
        The run in figures.

    Raises:
        VouchError: The campaign, the source, the workspace or the models cannot be used, or an operation failed.
    """
    from flows.console.progress import RunProgress
    from schemas.campaign_file import load_campaign

    # Mistakes in the file show at once, before prefect's import of some seconds.
    load_campaign(campaign)
    with RunProgress(terminal.remarks(), plain) as progress:
        from flows.run import run_campaign

        return run_campaign(campaign, on_event=progress, retry_failed=retry_failed, export=export)
