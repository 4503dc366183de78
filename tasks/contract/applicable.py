"""Finds the policy that can be applied to the labels of a run as they are."""

from collections.abc import Iterator

from schemas.campaign import Campaign
from schemas.errors import UserError
from schemas.policy import Policy
from schemas.records import Current
from tasks.contract.audits import expired_reason
from tasks.contract.choose import NONE
from tasks.contract.looks import read_looks
from tasks.route.policy import (
    FOLDER,
    changed_inputs,
    check_fits,
    check_promise,
    default_policy,
    lesser_promise,
    parse_policy,
    read_policy,
    write_policy,
)
from tasks.route.spoken import EXPIRED
from tasks.store.store import Store


def policy_to_apply(
    campaign: Campaign, workspace: Store, current: Current, version: str | None
) -> tuple[Policy, str | None]:
    """Read the policy to apply, and make sure that it fits the labels and what the campaign asks for.

    Args:
        campaign: Its classes, thresholds and routing.
        workspace: Where policies are kept.
        current: The settings under which the labels came about.
        version: Which policy; `none`: the thresholds of the campaign; None: the one that routing.policy names, else the
            newest certified policy that fits.

    Returns:
        The policy, and the version to put in force: its own, or None for the thresholds of the campaign.

    Raises:
        UserError: There is none, or it cannot be applied.
    """
    _check_campaign(campaign, current, version)
    asked = version if version is not None else campaign.routing.policy
    if asked is None:
        asked = _newest(workspace, campaign, current)
    if asked.lower() == NONE:
        policy = default_policy(campaign.classes, campaign.routing)
        write_policy(workspace, policy)
        return policy, None
    policy = read_policy(workspace, asked, campaign.classes, "routing.policy" if version is None else "--policy")
    _check_inputs_known(policy, current)
    check_fits(policy, current.inputs)
    check_promise(policy, campaign.routing)
    reason = expired_reason(workspace, campaign.run.name, policy)
    if reason is not None:
        raise UserError(f"policy {policy.version} has expired: {reason}")
    return policy, policy.version


def _check_campaign(campaign: Campaign, current: Current, version: str | None) -> None:
    declared = tuple(entry.name for entry in campaign.classes)
    if declared != current.classes:
        raise UserError("the classes of the campaign have changed since its labels were made; use `vouch run` first")
    named = campaign.routing.policy
    if version is not None and named is not None and named != version:
        raise UserError(
            f"routing.policy: the campaign names {named}, and its next run would undo this; remove it there first"
        )


def newest_certified(campaign: Campaign, workspace: Store, current: Current) -> Policy | None:
    """Read the certified policy of the run that was made last, people's word before that of simulated reviewers.

    Of those that fit the labels and promise what the campaign asks for; else of those that fit; else of all.

    Raises:
        UserError: A policy is damaged.
        StoreError: A look is.
    """
    ordered = sorted(_certified(workspace, campaign.run.name), key=lambda entry: entry[0])
    policies = [policy for _, policy in ordered]
    fitting = [policy for policy in policies if not changed_inputs(_inputs(policy), current.inputs)]
    keeping = [policy for policy in fitting if not lesser_promise(policy, campaign.routing)]
    return next(reversed(keeping or fitting or policies), None)


def _newest(workspace: Store, campaign: Campaign, current: Current) -> str:
    run = campaign.run.name
    policy = newest_certified(campaign, workspace, current)
    if policy is None:
        raise UserError(
            f"no policy was certified for run {run!r} in {workspace.uri}; `vouch certify` makes one of verdicts, and "
            "`vouch plan-reviews` tells what to review for it (--policy names one of another run)"
        )
    _check_inputs_known(policy, current)
    # One that does not fit is refused by the checks that follow, which say why.
    return policy.version


def _certified(workspace: Store, run: str) -> Iterator[tuple[tuple[bool, str], Policy]]:
    """Every policy that was certified for a run, with what orders them: whether people answered, and the time."""
    # Runs share a workspace, and a policy of another one says nothing of these labels, though their inputs be equal.
    looks = {(look.created, look.look, look.plans) for look in read_looks(workspace, run)}
    for info in workspace.list(f"{FOLDER}/"):
        version = info.key.removeprefix(f"{FOLDER}/").removesuffix(".json")
        if not version.startswith(("user-", EXPIRED)):
            policy = parse_policy(workspace, version, "looking for the newest policy (--policy names one)")
            made = policy.certification
            if made is not None and (made.created, made.look, made.plans) in looks:
                yield (not made.simulated, made.created), policy


def _inputs(policy: Policy) -> dict[str, str]:
    return {} if policy.certification is None else policy.certification.inputs


def _check_inputs_known(policy: Policy, current: Current) -> None:
    if policy.certification is not None and not current.inputs:
        raise UserError(
            "the labels come from an earlier version of Vouch, which did not record what they depend on; use "
            "`vouch run` once more, and nothing is labelled again"
        )
