"""The end of `vouch demo`: a round of reviews by a simulated reviewer, from review plan to certified policy."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from flows.console.output import say

if TYPE_CHECKING:
    from schemas.campaign import Campaign
    from schemas.policy import Certified
    from tasks.simulate.simulate import Round

TO_FIT: Final = 10.0
"""Minutes of the first review plan; the samples have fewer labels than that."""
TO_CERTIFY: Final = 1.5
"""Minutes of the second: about half of the labels that may be accepted, so that others are accepted unseen."""
STRICTER: Final = 0.95


@dataclass(frozen=True)
class DemoReview:
    """What the simulated reviews came to."""

    round: "Round | None"
    """None where there was none."""
    why_not: str = ""


def review(campaign: "Campaign", truth: Path) -> DemoReview:
    """Review the labels of the demo, certify and apply, unless an earlier demo has done it.

    Args:
        campaign: The demo's, which has been run; its user may have edited it.
        truth: The samples' ground truth.
    """
    from schemas.errors import UserError
    from tasks.certify.plan_reviews import Wish
    from tasks.reviews.plans import read_plans
    from tasks.simulate.simulate import review_round
    from tasks.store.open import open_store

    if read_plans(open_store(campaign.workspace), campaign.run.name):
        return DemoReview(None, "reviews of an earlier demo are in the workspace; they are not simulated again")
    try:
        return DemoReview(review_round(campaign, truth, (Wish(TO_FIT), Wish(TO_CERTIFY)), export=True))
    except UserError as error:
        return DemoReview(None, f"no simulated review: {error}")


def print_review(console: Console, done: DemoReview) -> None:
    """Print what was asked, what is certified, what it changed, and what is true."""
    from flows.console.certified import print_certified

    found = done.round
    if found is None:
        say(console, done.why_not)
        return
    say(console, "\nA SIMULATED REVIEWER, who answers from the samples' ground truth, shows how labels are certified:")
    for part in found.reviewed:
        plan = part.planned.plan
        say(console, f"review plan {plan.number}: {part.answers:,} answers. {'; '.join(part.planned.words)}")
    if found.certified is None:
        say(console, found.refusal)
        return
    # So few labels of each class say little.
    print_certified(console, found.certified.model_copy(update={"classes": ()}))
    say(console, _choice(found.certified))
    applied, contract = found.applied, found.contract
    if applied is None or contract is None:
        return
    side, held = contract.certified_side, "held" if contract.held else "is broken"
    say(
        console,
        f"applied without a model: {applied.accepted:,} of {applied.labels:,} labels are accepted now, "
        f"{applied.accepted_before:,} were by the thresholds; {applied.changed:,} are decided otherwise.",
    )
    if side.accepted_precision is not None and side.delivered_precision is not None:
        say(
            console,
            f"against the samples' truth: {side.accepted_precision:.1%} of the accepted labels are correct, "
            f"{side.delivered_precision:.1%} of those delivered; the contract {held}",
        )
    say(console, "Nothing is promised by this policy: it is marked as simulated. A real one takes people's verdicts.")


def as_json(done: DemoReview) -> dict[str, Any]:
    """The same for machines."""
    found = done.round
    if found is None:
        return {"simulated_review": None, "why_not": done.why_not}
    parts = {"certified": found.certified, "applied": found.applied, "contract": found.contract}
    return {
        "simulated_review": {
            name: None if part is None else part.model_dump(mode="json") for name, part in parts.items()
        }
        | {"refusal": found.refusal}
    }


def _choice(asked: "Certified") -> str:
    """Why the demo asks for so little, and what more would take."""
    from tasks.statistics.bounds import labels_needed

    delta = max(group.certificate.delta for group in asked.groups if group.certificate is not None)
    none, two = (labels_needed(errors, 1 - STRICTER, delta) for errors in (0, 2))
    return (
        f"Precision {asked.precision:g} is the demo's choice, as the samples are few: {STRICTER:g} takes {none:,} "
        f"labels reviewed to certify without an error among them, {two:,} with two, and more to accept many."
    )
