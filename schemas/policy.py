"""Defines the routing policy: which labels are accepted, by which rule, on what basis; and the result of certifying."""

from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from vouch_labels.schemas.campaign import Gate, Strict, Thresholds
from vouch_labels.schemas.text import (
    Block,
    Columns,
    Table,
    count,
    coverage_text,
    cut,
    estimate,
    guarantee_text,
    most,
    pct,
    plural,
    share,
    some,
)

MOST_NAMED: Final = 8
"""Classes without a sample that are named."""

CORRECT_MEANS = "class right, box acceptable as it is, not a duplicate"
"""The definition of a correct label that verdicts are given by."""


class TestBasis(Strict):
    """What the exact test of a group went by beside its sample, so that it can be taken again."""

    delta: float = Field(ge=0, le=1, description="What it may spend: this group's part of 1 - confidence.")
    labels: int = Field(ge=0, description="Labels that the sample is of.")
    known_correct: int = Field(0, ge=0, description="Other labels of the group that people had called correct.")
    known_wrong: int = Field(0, ge=0, description="The same, called wrong.")
    sizes: tuple[int, ...] = Field((), description="Of the labels, those at or above each tested threshold.")
    kept: tuple[int, ...] = Field((), description="Of these, those of classes that the guarantee is about.")
    whole: bool = Field(True, description="Whether all these labels were there; else the binomial test was taken.")


class GroupCertificate(Strict):
    """What the reviewed samples say of one group."""

    labels: int = Field(ge=0, description="Labels of the group in the population.")
    accepted: int = Field(ge=0, description="Of them, those at or above the threshold.")
    reviewed: int = Field(ge=0, description="Reviewed labels that stand for the set of the guarantee, n.")
    errors: int = Field(ge=0, description="Wrong among them, k.")
    limit: float = Field(ge=0, le=1, description="Share of wrong labels tested: 1 - T, less what reviewers miss.")
    bound: float = Field(ge=0, le=1, description="Upper bound of the share of wrong labels that reviewers see.")
    p_value: float = Field(ge=0, le=1, description="Of the hypothesis that the guarantee does not hold.")
    delta: float = Field(ge=0, le=1, description="Level of the test: this group's part of 1 - confidence.")
    tested: tuple[float, ...] = Field(description="Thresholds tested, in their order, up to the first that failed.")
    refusal: str = Field("", description="Why nothing is accepted; empty where something is.")
    more_reviews: int | None = Field(None, description="About how many more reviews would certify it, if known.")
    test: Literal["exact", "any time"] = Field(
        "exact", description="Of the whole sample, or the one that may be looked at after any answer."
    )
    basis: TestBasis | None = Field(None, description="Of the exact test; not in the first policies.")
    accepted_precision: float | None = Field(None, description="A: estimated precision of the accepted labels.")
    accepted_at_least: float = Field(0, ge=0, le=1, description="Its lower bound, for reading.")
    delivered_precision: float | None = Field(None, description="B: estimated precision of the delivered labels.")
    delivered_at_least: float = Field(0, ge=0, le=1, description="Its lower bound, for reading.")

    @model_serializer(mode="wrap")
    def _with_what_it_says(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what earlier policies do not say, so that their files and names stay the same."""
        found: dict[str, object] = handler(self)
        return {name: one for name, one in found.items() if (name, one) not in (("test", "exact"), ("basis", None))}


class Group(Strict):
    """Classes that share one rule."""

    name: str = Field(description="Name for people.")
    classes: tuple[str, ...] = Field(min_length=1, description="Class names.")
    accept: Thresholds | None = Field(None, description="Signals that a label needs; None: no such rule.")
    p_correct: float | None = Field(None, ge=0, le=1, description="Least p(correct) of a certified rule; None: none.")
    certificate: GroupCertificate | None = Field(None, description="What the rule rests on; certified policies alone.")


class Reviewers(Strict):
    """How many wrong labels reviewers miss: as honeypots showed, or as is assumed."""

    assumed: float = Field(0, ge=0, lt=1, description="Share missed at most, assumed; 0 where honeypots measured it.")

    planted: int = Field(0, ge=0, description="Known-wrong labels shown; 0: what they miss is assumed.")
    missed: int = Field(0, ge=0, description="Of them, called correct.")
    accepted: float = Field(0, ge=0, le=1, description="Upper bound of the share missed among acceptable labels.")
    routed: float = Field(0, ge=0, le=1, description="The same among labels that people get in any case.")
    spent: float = Field(0, ge=0, le=1, description="Part of 1 - confidence that these bounds use up.")


class LogMark(Strict):
    """An entry of the workspace's log."""

    number: int = Field(ge=1, description="Its number.")
    sha256: str = Field(description="Hex of SHA-256 over its bytes.")


class Covered(Strict):
    """Labels that a certificate covers: all that a random sample was drawn from, and no others."""

    population: str = Field(description="Name of the record of their ids: populations/<name>.parquet.")
    labels: int = Field(ge=0, description="How many.")
    images: int = Field(ge=0, description="Images that they are on.")
    known: str | None = Field(None, description="Name of the record of labels that people had looked at before.")
    without: str | None = Field(None, description="The same of labels in the sample that got no answer: not covered.")
    plan: int = Field(ge=1, description="Number of the review plan that drew the sample.")
    created: str = Field(description="When it was drawn, ISO 8601, UTC.")


_LEFT_OUT: Final = (
    "covers", "extends", "extension_delta", "extension_labels", "extension_times", "log", "answered", "repeat",
)  # fmt: skip
"""Of a certification that says nothing of them."""


class Certification(Strict):
    """What makes a policy certified; enough to check and to repeat it."""

    definition_of_correct: str = Field(CORRECT_MEANS, description="What reviewers were asked.")
    precision: float = Field(gt=0, lt=1, description="T.")
    confidence: float = Field(gt=0, lt=1, description="1 - delta.")
    gate: Gate = Field(description="What the guarantee is about.")
    look: int = Field(ge=1, description="Which test of certification labels this was; each spends a part of delta.")
    inputs: dict[str, str] = Field(description="What labels depend on (models, prompts ...) -> its fingerprint.")
    calibrator: dict[str, Any] = Field(description="As tasks.statistics.calibrator.Calibrator.to_dict gives it.")
    fit_labels: int = Field(ge=0, description="Reviewed labels that it was fitted to.")
    brier: float = Field(ge=0, description="Held-out mean of (p - correct)^2.")
    brier_of_rate: float = Field(ge=0, description="The same of the constant share of correct labels.")
    fit_share: float = Field(
        0, ge=0, le=1, description="Share of images whose labels go to review, in policies of before 2026-12."
    )
    seed: int = Field(ge=0, description="Seed of every draw.")
    covers: tuple[Covered, ...] = Field(
        (), description="The labels that it covers, the first as certified; empty in policies of before 2026-12."
    )
    extends: str | None = Field(None, description="The policy that was certified first, where new labels came to it.")
    extension_delta: float | None = Field(
        None, gt=0, lt=1, description="Part of 1 - confidence for labels that come later; not in the first policies."
    )
    extension_labels: int | None = Field(None, ge=0, description="Labels of all top-up samples' batches, each once.")
    extension_times: int | None = Field(None, ge=1, description="In so many batches is each that counts, at least.")
    plans: tuple[int, ...] = Field(description="Numbers of the review plans whose verdicts it rests on.")
    verdicts: str = Field(description="Fingerprint of those verdicts.")
    answered: int | None = Field(
        None, description="Labels of the sample, in the order drawn, that the test after any answer saw; None: no such."
    )
    repeat: int = Field(0, ge=0, description="How many tests of the same look, after fewer answers, came before.")
    reviewers: Reviewers = Field(Reviewers(), description="Correction for what reviewers miss.")
    simulated: bool = Field(False, description="Verdicts came from a simulated reviewer, so nothing is certified.")
    reference: dict[str, tuple[float, ...]] = Field(
        {}, description="Signal -> 101 percentiles on the batch that was certified, to notice drift by."
    )
    # A policy's name is a hash over its certification, this text included: another one would be another policy.
    audit_expiry: str = Field(
        "on a changed fingerprint at once; by audits when the wealth of bets against the promise reaches 1/delta",
        description="When the policy expires.",
    )
    log: LogMark | None = Field(None, description="The test in the workspace's log; None: it had none then.")
    created: str = Field(description="Date and time, ISO 8601, UTC.")

    @model_serializer(mode="wrap")
    def _with_what_it_says(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what policies of before 2026-12 do not say, so that their files and decisions stay the same."""
        found: dict[str, object] = handler(self)
        reviewers = found.get("reviewers")
        if isinstance(reviewers, dict) and not reviewers.get("assumed"):
            found["reviewers"] = {name: one for name, one in reviewers.items() if name != "assumed"}
        return {name: one for name, one in found.items() if one or name not in _LEFT_OUT}


class Policy(Strict):
    """A versioned set of rules, kept as policies/<version>.json."""

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Its name.")
    basis: Literal["user_thresholds", "certified"] = Field(
        "user_thresholds",
        description="Why it may accept: thresholds that the user allowed, uncertified, or reviewed samples.",
    )
    groups: tuple[Group, ...] = Field(min_length=1, description="Every class is in exactly one.")
    certification: Certification | None = Field(None, description="What a certified policy rests on.")

    @model_validator(mode="after")
    def _rules_fit_the_basis(self) -> "Policy":
        certified = self.basis == "certified"
        if certified != (self.certification is not None):
            raise ValueError("a certified policy, and no other, carries its certification")
        if any((group.accept is not None) if certified else (group.p_correct is not None) for group in self.groups):
            raise ValueError("certified policies accept by p_correct, others by the user's thresholds")
        return self


class ClassEstimate(Strict):
    """Precision of a class's accepted labels, drawn towards that of its group; for reading, not certified."""

    name: str = Field(description="Class name.")
    group: str = Field(description="Name of its group.")
    accepted: int = Field(ge=0, description="Labels of it that are accepted.")
    reviewed: int = Field(ge=0, description="Reviewed ones among them.")
    errors: int = Field(ge=0, description="Wrong ones of these.")
    precision: float | None = Field(None, description="Estimate; None where nothing is accepted, or reviewed.")


class Certified(Strict):
    """The result of certifying a run."""

    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    version: str | None = Field(description="Of the policy that was written; None: nothing could be certified.")
    in_force: bool = Field(False, description="The run is routed by that policy already.")
    precision: float = Field(description="T.")
    confidence: float = Field(description="1 - delta.")
    gate: Gate = Field(description="What the guarantee is about.")
    look: int = Field(ge=1, description="Which test of certification labels this was.")
    delta: float = Field(description="What this test may spend of 1 - confidence, for all groups.")
    groups: tuple[Group, ...] = Field(description="With their certificates.")
    not_sampled: tuple[str, ...] = Field((), description="Classes without a label in the sample: they go to people.")
    classes: tuple[ClassEstimate, ...] = Field(description="Of the groups that are certified.")
    labels: int = Field(ge=0, description="Labels of the run.")
    covers: tuple[Covered, ...] = Field(description="The labels that the guarantee covers.")
    outside: int = Field(ge=0, description="Labels of the run that it does not cover and that no person has looked at.")
    waiting: int = Field(0, ge=0, description="Labels that wait for people, before delivered labels are as guaranteed.")
    now: float | None = Field(None, description="A, estimated, of what is accepted; what holds while they wait.")
    accepted: int = Field(ge=0, description="Of them, those that the policy accepts.")
    reviewers: Reviewers = Field(description="What honeypots showed.")
    simulated: bool = Field(description="Verdicts came from a simulated reviewer.")
    more_reviews: int | None = Field(None, description="About how many more would certify something; None: unknown.")
    unanswered: int = Field(0, ge=0, description="Labels of the sample that wait, where its beginning was tested.")
    remarks: tuple[str, ...] = Field((), description="What else there is to know, in words.")

    def blocks(self) -> Iterator[Block]:
        """The certificates, what they allow, and what is not certified."""
        tested = [(group, one) for group in self.groups if (one := group.certificate) is not None and one.reviewed]
        asked = guarantee_text(self.precision, self.gate, self.confidence, self.reviewers.assumed)
        groups = plural(len(tested), "group")
        tests = f"test {self.look}, at level {self.delta:.4g} for {groups}" if tested else f"at level {self.delta:.4g}"
        if self.version is not None and self.gate == "delivered" and self.now is not None and self.waiting:
            waiting = plural(self.waiting, "label that waits", "labels that wait")
            yield (
                f"now about {pct(self.now)} of the accepted labels are correct; at least {pct(self.precision)} of the "
                f"delivered ones once people have decided the {waiting}"
            )
        yield f"run {self.run}: {asked}; {tests}"
        if self.simulated:
            yield "simulated reviewer: a program answered from ground truth, so this certifies nothing"
            # Nobody is asked what has an answer, and all runs of a workspace share its verdicts.
            yield (
                "for people to answer instead: another workspace.uri in the campaign file, then vouch run CAMPAIGN and "
                "vouch review CAMPAIGN; or import their verdicts on all labels of this sample: vouch verdicts CAMPAIGN "
                "FILE"
            )
        if tested:
            yield _group_table(tested)
        for group in self.groups:
            if group.certificate is not None and group.certificate.refusal:
                yield f"{group.name}: not certified: {group.certificate.refusal}"
        if self.not_sampled:
            one_class = len(self.not_sampled) == 1
            have, their = ("class has", "it and its") if one_class else ("classes have", "them and their")
            yield (
                f"{len(self.not_sampled):,} {have} no label in the sample, so nothing is known of {their} labels go to "
                f"people: {some(self.not_sampled, MOST_NAMED)}"
            )
        if self.classes:
            rows = [(one.name, one.accepted, one.reviewed, one.errors, one.precision) for one in self.classes]
            columns: Columns = {"class": str, "accepted": count, "reviewed": count, "wrong": count, "precision": share}
            yield Table("by class, accepted labels, drawn towards their group; not certified", columns, rows)
        if self.reviewers.planted:
            yield (
                f"reviewers missed {self.reviewers.missed} of {self.reviewers.planted} known-wrong labels: at most "
                f"{most(self.reviewers.accepted)} of those that may be accepted, {most(self.reviewers.routed)} of the "
                "others"
            )
        yield from self.remarks
        if self.version is not None:
            accepted = pct(self.accepted / self.labels) if self.labels else "0%"
            covered, images = sum(one.labels for one in self.covers), sum(one.images for one in self.covers)
            covers = coverage_text(covered, images, self.covers[-1].created, self.outside) if self.covers else ""
            yield (
                f"policy {self.version} accepts {self.accepted:,} of {plural(self.labels, 'label')} ({accepted}); "
                f"{covers}"
            )
            yield "it is active already" if self.in_force else "make it the active policy: vouch apply CAMPAIGN"
        yield f"workspace: {self.workspace}"


def _group_table(tested: list[tuple[Group, GroupCertificate]]) -> Table:
    columns: Columns = {
        "group": str, "n": count, "wrong": count, "at most": pct, "allowed": pct, "p ≥": cut, "accepted": share,
        "precision A": estimate, "precision B": estimate,
    }  # fmt: skip
    rows = [
        (
            group.name,
            one.reviewed,
            one.errors,
            one.bound,
            one.limit,
            group.p_correct,
            one.accepted / one.labels if one.labels else None,
            _estimate(one.accepted_precision, one.accepted_at_least),
            _estimate(one.delivered_precision, one.delivered_at_least),
        )
        for group, one in tested
    ]
    return Table("", columns, rows)


def _estimate(value: float | None, at_least: float) -> tuple[float, float] | None:
    return None if value is None else (value, at_least)
