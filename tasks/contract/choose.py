"""Chooses the policy that a run is routed by."""

from dataclasses import dataclass
from typing import Final

from schemas.campaign import Campaign, RoutingConfig
from schemas.policy import Policy
from tasks.contract.audits import expired_reason
from tasks.contract.in_force import version_in_force
from tasks.route.policy import check_promise, default_policy, expired_policy, read_policy, write_policy
from tasks.store.store import Store

NONE: Final = "none"
"""Value of routing.policy and of --policy that stands for the thresholds of the campaign."""


@dataclass(frozen=True)
class Chosen:
    """A policy, and what a user must know about the choice."""

    policy: Policy
    expired: str = ""
    """Why the policy in force accepts nothing any more; empty while it holds."""
    made: bool = False
    """Whether it is made of the campaign, or of the policy that it takes the place of, and may not be kept yet."""


def choose_policy(campaign: Campaign, workspace: Store) -> Chosen:
    """Choose as `look_up_policy` does, and make sure that the policy is kept.

    Raises:
        UserError: As `look_up_policy` and `write_policy`.
        StoreError: As `look_up_policy`.
    """
    chosen = look_up_policy(campaign, workspace)
    if chosen.made:
        write_policy(workspace, chosen.policy)
    return chosen


def look_up_policy(campaign: Campaign, workspace: Store) -> Chosen:
    """Choose by routing.policy; nothing is written.

    It names a version, or says `none` for the thresholds of the campaign; empty, it leaves the choice to the policy in
    force of the run and, where there is none, to those thresholds. A certified policy that audits have ended gives way
    to one that sends everything to review.

    Raises:
        UserError: As `read_policy` and `check_promise`.
        StoreError: The record of the policy in force, a review plan or a file of verdicts is damaged.
    """
    version = wanted_version(campaign.routing, workspace, campaign.run.name)
    if version is None:
        return Chosen(default_policy(campaign.classes, campaign.routing), made=True)
    named = campaign.routing.policy is not None
    policy = read_policy(workspace, version, campaign.classes, "routing.policy" if named else "policy in force")
    check_promise(policy, campaign.routing)
    reason = expired_reason(workspace, campaign.run.name, policy)
    return Chosen(policy) if reason is None else Chosen(expired_policy(policy), reason, made=True)


def wanted_version(routing: RoutingConfig, workspace: Store, run: str) -> str | None:
    """Give the version to route by; None: the thresholds of the campaign."""
    if routing.policy is None:
        return version_in_force(workspace, run)
    return None if routing.policy.lower() == NONE else routing.policy
