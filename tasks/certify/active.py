"""Says which policy is active, whether it can be used, and what it guarantees: the one place that all ask.

The active policy of a run is named by runs/<run>/policy.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import Field, ValidationError

from vouch_labels.schemas.campaign import Campaign, Strict
from vouch_labels.schemas.errors import ObjectMissingError, StoreError, UserError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import Current
from vouch_labels.tasks import detect, score
from vouch_labels.tasks.certify.monitor import expired_reason
from vouch_labels.tasks.labels.records import Guarantee
from vouch_labels.tasks.policy import (
    EXPIRED,
    check_fits,
    check_guarantee,
    default_policy,
    expired_policy,
    policy_key,
    read_policy,
    write_policy,
)
from vouch_labels.tasks.reviews.class_changes import class_changes
from vouch_labels.tasks.store.store import Store

NONE: Final = "none"
"""Value of routing.policy and of --policy that stands for the thresholds of the campaign."""

_REMEDY: Final = "delete it to route by the thresholds of the campaign, or use `vouch apply` to activate a policy"


@dataclass(frozen=True)
class Chosen:
    """A policy, and what a user must know about the choice."""

    policy: Policy
    expired: str = ""
    """Why the active policy accepts nothing any more; empty while it holds."""
    made: bool = False
    """Whether it is made of the campaign, or of the policy that it takes the place of, and may not be kept yet."""


def choose_policy(campaign: Campaign, workspace: Store) -> Chosen:
    """Choose as `find_policy` does, and make sure that the policy is kept.

    Raises:
        UserError: As `find_policy` and `write_policy`.
        StoreError: As `find_policy`.
    """
    chosen = find_policy(campaign, workspace)
    if chosen.made:
        write_policy(workspace, chosen.policy)
    return chosen


def usable_policy(campaign: Campaign, workspace: Store, inputs: Mapping[str, str]) -> Chosen:
    """Choose by routing.policy, and make sure that the policy says something of labels that depend on `inputs`.

    `inputs` as in `Pipeline.inputs` and `Current.inputs`; empty where labels of an earlier version of Vouch do not say
    what they depend on. What the campaign says goes before them: changed prompts end a policy at once, not only when
    labels were made by them. Nothing is written.

    Raises:
        UserError: The policy cannot be used; the message says why, and what to do.
        StoreError: As `find_policy`.
    """
    chosen = find_policy(campaign, workspace)
    if inputs:
        declared = declared_inputs(campaign)
        check_fits(chosen.policy, {name: declared.get(name, value) for name, value in inputs.items()})
    return chosen


def declared_inputs(campaign: Campaign) -> dict[str, str]:
    """What labels would depend on that were made now, as far as the campaign itself says: name -> its fingerprint."""
    models = campaign.models
    detector = detect.declared_inputs(campaign.classes, models.detector, campaign.run.tiles)
    return detector | score.declared_inputs(campaign.classes, models.scorer)


def find_policy(campaign: Campaign, workspace: Store) -> Chosen:
    """Choose by routing.policy, whatever labels there are; nothing is written.

    It names a version, or says `none` for the thresholds of the campaign; empty, it leaves the choice to the active
    policy of the run and, where there is none, to those thresholds. A certified policy that audits have ended gives way
    to one that sends everything to review.

    Raises:
        UserError: As `read_policy` and `check_guarantee`.
        StoreError: The record of the active policy, a review plan or a file of verdicts is damaged.
    """
    version = campaign.routing.policy
    named = version is not None
    if version is None:
        version = active_version(workspace, campaign.run.name)
    if version is None or version.lower() == NONE:
        return Chosen(default_policy(campaign.classes, campaign.routing), made=True)
    policy = read_policy(workspace, version, campaign.classes, "routing.policy" if named else "active policy")
    check_guarantee(policy, campaign.routing)
    reason = expired_reason(workspace, campaign.run.name, policy)
    return Chosen(policy) if reason is None else Chosen(expired_policy(policy), reason, made=True)


def check_classes_labelled(campaign: Campaign, current: Current) -> None:
    """Refuse labels that were made of other classes than the campaign declares.

    Raises:
        UserError: They were.
    """
    if tuple(entry.key for entry in campaign.classes) != current.classes:
        what = class_changes(campaign.classes, current) or "the classes were put into another order"
        raise UserError(f"{what} since the labels were made; use `vouch run` first")


class ActivePolicy(Strict):
    """runs/<run>/policy.json."""

    version: str | None = Field(description="Version of the policy; None: the thresholds of the campaign.")


def active_version(workspace: Store, run: str) -> str | None:
    """Read the version of the policy that a run is routed by while routing.policy is empty; None: there is none.

    Raises:
        StoreError: The record is damaged.
    """
    key = _key(run)
    try:
        return ActivePolicy.model_validate_json(workspace.get(key).data).version
    except ObjectMissingError:
        return None
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is damaged; {_REMEDY}") from None


def activate(workspace: Store, run: str, version: str | None) -> None:
    """Route a run by a policy from now on; None: by the thresholds of the campaign."""
    workspace.put(_key(run), ActivePolicy(version=version).model_dump_json().encode() + b"\n")


def _key(run: str) -> str:
    return f"runs/{run}/policy.json"


def guarantee_of(campaign: Campaign, workspace: Store, version: str) -> Guarantee | str:
    """What a policy guarantees of a data set that is exported now; text: why not, empty where it never did.

    Raises:
        StoreError: The policy, a review plan or a file of verdicts is damaged.
    """
    key = policy_key(version)
    try:
        policy = Policy.model_validate_json(workspace.get(key).data)
    except ObjectMissingError:
        return ""
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is damaged; restore it, or use `vouch apply` with another") from None
    found = policy.certification
    if found is None:
        return ""
    if reason := expired_reason(workspace, campaign.run.name, policy):
        return f"policy {version} has expired: {reason}"
    if version.startswith(EXPIRED):
        return f"policy {version.removeprefix(EXPIRED)} has expired; use `vouch certify` again"
    if campaign.export.undecided == "include":
        return "labels that nobody has looked at are plain annotations in it (export.undecided: include)"
    if campaign.export.boxes == "mask":
        return "its boxes are those of the masks, and reviewers judged others (export.boxes: mask)"
    if not found.covers:
        return (
            f"policy {version} was certified by an earlier version of Vouch, which did not keep which labels it "
            "covers; use `vouch plan-reviews` and `vouch certify` again"
        )
    return Guarantee(
        policy=version,
        precision=found.precision,
        confidence=found.confidence,
        gate=found.gate,
        missed=found.reviewers.assumed,
        labels=sum(one.labels for one in found.covers),
        images=sum(one.images for one in found.covers),
        as_of=found.covers[-1].created,
        simulated=found.simulated,
    )
