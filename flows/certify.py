"""The flows that certify a run, and that pull people's answers, certify by them and apply the policy."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow

from vouch_labels.flows.artifacts import publish
from vouch_labels.review_ui.server.answers import pull_answers
from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.errors import NotCertifiedError, UserError
from vouch_labels.schemas.policy import Certified
from vouch_labels.schemas.queue import AppliedReviews
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign

logger = logging.getLogger(__name__)

Found = TypeVar("Found")


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
    _publish(found)
    return found.model_dump(mode="json")


@flow(name="vouch-show-certificates", persist_result=False)
def show_certificates(certified: dict[str, Any]) -> None:
    """Show in Prefect what was certified outside of it; artifacts belong to a flow's run."""
    _publish(Certified.model_validate(certified))


def show(found: Certified) -> None:
    """Show a result in Prefect; a server that has gone away takes nothing from it."""
    try:
        show_certificates(found.model_dump(mode="json"))
    except Exception:
        logger.warning("the certificates could not be shown in Prefect", exc_info=True)


def _publish(found: Certified) -> None:
    policy = "not certified" if found.version is None else f"policy {found.version}"
    title = f"Certification of run {found.run}: {policy}"
    publish("vouch-certify", f"what run {found.run} may accept, and why", title, found.blocks())


@flow(name="vouch-apply-reviews", persist_result=False)
def apply_reviews(campaign: str, export: bool = True) -> dict[str, Any]:
    """Bring answers of the review queue into the workspace, certify by them, and make the policy the active one.

    What comes too early is reported, and is no failure: no queue yet, a sample that is not answered yet, or one that
    certifies nothing.

    Args:
        campaign: Path of the campaign file on the machine that runs the flow.
        export: Write the data set when decisions changed.

    Returns:
        The AppliedReviews as JSON values.
    """
    found = pull_and_apply(load_campaign(Path(campaign)), export=export)
    publish("vouch-apply-reviews", "what people's answers changed", "People's answers", found.blocks())
    return found.model_dump(mode="json")


def pull_and_apply(campaign: Campaign, *, export: bool = True) -> AppliedReviews:
    """Do what the flow does, in this process."""
    not_done: list[str] = []
    pulled = _tried(pull_answers, campaign, "no answers were pulled", not_done)
    certified = _tried(certify_campaign, campaign, "nothing was certified", not_done)
    applied = None
    if certified is not None and certified.version is not None:
        applied = apply_policy(campaign, certified.version, export=export)
    return AppliedReviews(pulled=pulled, certified=certified, applied=applied, words=tuple(not_done))


def _tried(step: Callable[[Campaign], Found], campaign: Campaign, otherwise: str, not_done: list[str]) -> Found | None:
    try:
        return step(campaign)
    except (UserError, NotCertifiedError) as error:
        logger.warning("%s: %s", otherwise, error)
        not_done.append(f"{otherwise}: {error}")
        return None
