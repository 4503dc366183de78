"""How a run's labels and a report of them were made."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from schemas.campaign import Campaign
from schemas.records import Current
from schemas.report import Provenance

PACKAGES: Final = ("torch", "transformers", "groundingdino-py", "segment-anything", "open-clip-torch", "numpy",
                   "scikit-learn", "prefect")  # fmt: skip


def provenance(campaign: Campaign, current: Current) -> Provenance:
    """Name versions, models and settings; packages are those that make the report, not those that made the labels."""
    models, routing, export = campaign.models, campaign.routing, campaign.export
    return Provenance(
        vouch=_version("vouch"),
        packages={name: _version(name) for name in PACKAGES},
        fingerprint=current.fingerprint,
        inputs=dict(current.inputs),
        models={
            "detector": models.detector.checkpoint,
            "segmenter": models.segmenter.checkpoint,
            "scorer": models.scorer.checkpoint,
        },
        settings={
            "classes": f"{len(current.classes):,}",
            "least detector score": f"{models.detector.min_score:g}",
            "precision asked for": f"{routing.precision:g}",
            "confidence asked for": f"{routing.confidence:g}",
            "gate": routing.gate,
            "seed of draws": str(routing.seed),
            "undecided boxes in the data set": export.undecided,
        },
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
