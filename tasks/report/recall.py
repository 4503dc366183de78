"""What the report says of recall."""

from collections.abc import Mapping

from schemas.campaign import RoutingConfig
from schemas.errors import UserError
from schemas.report import RecallPart, RecallReport
from tasks.certify.recall import recall_of_run
from tasks.labels.arrays import RunLabels
from tasks.report.audited import interval
from tasks.reviews.plans import Plans
from tasks.reviews.resolve import Answers, ImageAnswers


def recall_report(
    labels: RunLabels,
    plans: Plans,
    images: ImageAnswers,
    answers: Answers,
    inputs: Mapping[str, str],
    routing: RoutingConfig,
) -> RecallReport:
    """Estimate recall from searched images, or say what it takes.

    Args:
        labels: All labels of the run.
        plans: Its review plans.
        images: What people said of images.
        answers: What they said of labels.
        inputs: What the labels depend on.
        routing: Confidence of the intervals, and the seed of the bootstrap.
    """
    delta = 1 - routing.confidence
    try:
        found = recall_of_run(labels, plans, images, answers, inputs=inputs, delta=delta, seed=routing.seed)
    except UserError as error:
        return RecallReport(advice=str(error))
    return RecallReport(
        accepted=interval(found.accepted, routing.confidence),
        delivered=interval(found.delivered, routing.confidence),
        parts=tuple(
            RecallPart(
                name=one.name,
                images=one.images,
                searched=one.searched,
                objects=one.objects,
                accepted=one.accepted,
                delivered=one.delivered,
            )
            for one in found.strata
        ),
        undecided=found.undecided,
        simulated=found.simulated,
    )
