"""Makes and keeps the policy that a certification allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import ObjectMissingError
from schemas.policy import Certification, Group, GroupCertificate, Policy, Reviewers
from tasks.contract.drift import reference
from tasks.contract.judge import Judged
from tasks.contract.looks import Look
from tasks.contract.rounds import Round, RoundLabels
from tasks.contract.run_reviews import RunReviews
from tasks.route.content_name import content_name
from tasks.route.policy import policy_key, write_policy


@dataclass(frozen=True)
class Basis:
    """What a policy rests on."""

    reviews: RunReviews
    round: Round
    labels: RoundLabels
    look: Look
    reviewers: Reviewers
    simulated: bool
    verdicts: str
    """Fingerprint of the verdicts."""


def policy_groups(judged: Sequence[Judged]) -> tuple[Group, ...]:
    """The declared groups, with the classes that the promise is about."""
    return tuple(_group(one) for one in judged if one.classes)


def not_sampled(judged: Sequence[Judged]) -> tuple[str, ...]:
    """The classes of which no label was drawn."""
    return tuple(name for one in judged for name in one.left_out)


def make_policy(basis: Basis, judged: Sequence[Judged], created: str) -> Policy:
    """Make the policy and keep it; the same certification again gives the policy that is kept already.

    Its version is certified-<look>-<hash>, the hash over all it says but the version itself and the time. Classes of
    which no label was drawn are a group of their own, which accepts nothing.
    """
    groups = (*policy_groups(judged), *_group_not_sampled(not_sampled(judged)))
    reviews, plan, kept = basis.reviews, basis.round.plan, basis.labels.kept
    scores, side = basis.labels.candidates.scores, basis.labels.candidates.certify_side
    promise = reviews.promise
    certification = Certification(
        precision=promise.precision,
        confidence=promise.confidence,
        gate=promise.gate,
        look=basis.look.look,
        inputs=reviews.current.inputs,
        calibrator=kept.calibrator,
        fit_labels=kept.labels,
        brier=kept.brier,
        brier_of_rate=kept.brier_of_rate,
        fit_share=plan.fit_share,
        seed=plan.seed,
        plans=basis.look.plans,
        verdicts=basis.verdicts,
        reviewers=basis.reviewers,
        simulated=basis.simulated,
        reference=reference(reviews.labels, scores, side),
        created=created,
    )
    rules = [group.model_dump(mode="json") for group in groups]
    version = content_name(basis.look.look, rules, certification.model_dump(mode="json"))
    policy = Policy(version=version, basis="certified", groups=groups, certification=certification)
    try:
        return Policy.model_validate_json(reviews.workspace.get(policy_key(version)).data)
    except ObjectMissingError:
        write_policy(reviews.workspace, policy)
        return policy


def _group(one: Judged) -> Group:
    found, precisions = one.certificate, one.precisions
    certified = found.threshold is not None
    return Group(
        name=one.plan.name,
        classes=one.classes,
        p_correct=found.threshold,
        certificate=GroupCertificate(
            labels=one.labels,
            accepted=one.accepted,
            reviewed=found.reviewed,
            errors=found.errors,
            limit=one.limit,
            bound=found.bound,
            p_value=found.p_value,
            delta=one.delta,
            tested=tuple(found.tested.tolist()),
            refusal=found.refusal,
            more_reviews=found.more_reviews,
            accepted_precision=_known(precisions.accepted),
            accepted_at_least=precisions.accepted_at_least if certified else 0,
            delivered_precision=_known(precisions.delivered),
            delivered_at_least=precisions.delivered_at_least if certified else 0,
        ),
    )


def _group_not_sampled(classes: tuple[str, ...]) -> tuple[Group, ...]:
    if not classes:
        return ()
    refusal = "no label of these classes was drawn, so nothing is known of them"
    certificate = GroupCertificate(
        labels=0, accepted=0, reviewed=0, errors=0, limit=0, bound=1, p_value=1, delta=0, tested=(), refusal=refusal
    )
    return (Group(name="not sampled", classes=classes, certificate=certificate),)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
