"""The flow that certifies a run, and shows the result in Prefect."""

import logging
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.markdown import certified_markdown
from schemas.campaign_file import load_campaign
from schemas.policy import Certified
from tasks.certify.certify import certify_campaign

logger = logging.getLogger(__name__)


@flow(name="vouch-certify", persist_result=False)
def vouch_certify(campaign: str, unanswered_as_wrong: bool = False) -> dict[str, Any]:
    """Test the reviewed certification sample of a campaign, and write the policy that it allows.

    Args:
        campaign: Path of the campaign file on the machine that runs the flow.
        unanswered_as_wrong: Count certification tasks without an answer as wrong.

    Returns:
        The Certified as JSON values; its version is None where nothing could be certified.
    """
    found = certify_campaign(load_campaign(Path(campaign)), unanswered_as_wrong)
    try:
        _publish(certified_markdown(found), found.run)
    except Exception:
        _say_not_shown()
    return found.model_dump(mode="json")


@flow(name="vouch-show-certificates", persist_result=False)
def show_certificates(markdown: str, run: str) -> None:
    """Show in Prefect what was certified outside of it; artifacts belong to a flow's run.

    Args:
        markdown: What to show.
        run: Name of the labelling run that it is about.
    """
    _publish(markdown, run)


def show(found: Certified) -> None:
    """Show a result in Prefect; a server that has gone away takes nothing from it."""
    try:
        show_certificates(certified_markdown(found), found.run)
    except Exception:
        _say_not_shown()


def _publish(markdown: str, run: str) -> None:
    create_markdown_artifact(markdown, key="vouch-certify", description=f"what run {run} may accept, and why")


def _say_not_shown() -> None:
    logger.warning("the certificates could not be shown in Prefect", exc_info=True)
