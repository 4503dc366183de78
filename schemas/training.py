"""Defines what is asked of a training, and what came of it."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.text import NONE, Block, Table, count, duration, facts, plural, policy_name, score

Size = Literal[
    "tiny", "dfine-n", "dfine-s", "dfine-m", "dfine-l", "dfine-x",
    "rtdetrv2-r18", "rtdetrv2-r34", "rtdetrv2-r50m", "rtdetrv2-r50", "rtdetrv2-r101",
]  # fmt: skip
"""Architectures by name: a D-FINE of half a million parameters for trials, and the published ones."""

FORMAT = "training.json"
"""Written last into the folder of a trained model."""


class TrainSettings(Strict):
    """What a training depends on, beside its labels; equal settings and labels give the same weights on a CPU."""

    size: Size | None = Field(None, description="Architecture, with random weights; None: that of `start`.")
    start: str | None = Field(None, description="Folder, or hf://owner/repo, of a model that training starts from.")
    steps: int | None = Field(None, ge=1, description="Batches to learn from.")
    epochs: float | None = Field(None, gt=0, description="Times that every image is looked at, instead of steps.")
    minutes: float | None = Field(None, gt=0, description="Time to train, instead of steps.")
    batch: int = Field(8, ge=1, description="Images in a batch.")
    image_size: int = Field(
        640, ge=64, le=2048, multiple_of=32, description="Side of the square that images are resized to, pixels."
    )
    learning_rate: float = Field(
        1e-4, gt=0, description="Greatest learning rate; that of a backbone from `start` is a tenth."
    )
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn.")


class TrainedClass(Strict):
    """One class of a trained model."""

    labels: int = Field(ge=0, description="Labels that it was trained on.")
    objects: int | None = Field(None, description="Objects of the held-out images; None where there are none.")
    ap: float | None = Field(None, description="AP at IoU .50 to .95 on them.")


class HeldOut(Strict):
    """Average precision on images that people searched exhaustively, which training did not see."""

    images: int = Field(ge=1, description="Images.")
    objects: int = Field(ge=0, description="Objects that people know in them.")
    ap: float | None = Field(description="AP, mean over IoU .50 to .95 and classes, by pycocotools.")
    ap50: float | None = Field(description="AP at IoU .50.")
    simulated: bool = Field(False, description="A simulated reviewer searched some of them.")


class TrainSummary(Strict):
    """A trained model: what it was made of, and how good it is; training.json of its folder."""

    folder: str = Field(description="Folder of the model.")
    run: str = Field(description="Run whose labels it was trained on.")
    version: str = Field(description="Fingerprint of these labels and images.")
    policy: str = Field(description="Version of the policy that accepted them.")
    guarantee: str = Field(description="What is guaranteed of their precision, or why nothing is.")
    model_type: str = Field(description="Architecture, as transformers names it.")
    parameters: int = Field(ge=0, description="Numbers of the model.")
    settings: TrainSettings
    images: int = Field(ge=1, description="Images that it was trained on.")
    labels: int = Field(ge=1, description="Labels in them.")
    ignored: int = Field(ge=0, description="Undecided labels in them, whose regions teach nothing.")
    unlabelled: int = Field(ge=0, description="Images left out: no label is accepted there, and nobody searched them.")
    unreadable: dict[str, str] = Field(description="Images that could not be read -> why; some of them.")
    classes: dict[str, TrainedClass] = Field(description="Class -> what is known of it.")
    steps: int = Field(ge=0, description="Batches that it learned from.")
    seconds: float = Field(ge=0, description="Time that took, interruptions left out.")
    first_loss: float = Field(description="Mean loss of the first tenth of the steps.")
    last_loss: float = Field(description="Mean loss of the last tenth.")
    held_out: HeldOut | None = Field(None, description="How good it is; None: no image was searched exhaustively.")
    licence: str = Field(description="What is known of the licence of its weights.")
    package_versions: dict[str, str] = Field(description="Package -> version that trained it.")

    def blocks(self) -> Iterator[Block]:
        """Figures, classes, and how it becomes the next detector."""
        found = self.held_out
        yield facts(
            f"detector trained on run {self.run}",
            {
                "model": f"{self.model_type}, {self.parameters / 1e6:.1f} million parameters",
                "images": f"{self.images:,} ({self.unlabelled:,} without a label left out)",
                "labels": count(self.labels),
                "undecided regions ignored": count(self.ignored),
                "policy": policy_name(self.policy),
                "steps": f"{self.steps:,} of {plural(self.settings.batch, 'image')}, {duration(self.seconds)}",
                "loss": f"{self.first_loss:.2f} at first, {self.last_loss:.2f} at last",
                "AP": NONE if found is None or found.ap is None else score(found.ap),
                "AP50": NONE if found is None or found.ap50 is None else score(found.ap50),
            },
        )
        if found is not None:
            rows = [(name, one.labels, one.objects, one.ap) for name, one in self.classes.items()]
            yield Table("classes", {"class": str, "labels": count, "held-out objects": count, "AP": score}, rows)
            people = "a SIMULATED reviewer" if found.simulated else "people"
            yield f"AP: on {plural(found.images, 'image')} that {people} searched exhaustively and training did not see"
        else:
            yield (
                "no figure of its quality: nobody has searched an image for every object yet, certification samples "
                "left out; vouch plan-reviews CAMPAIGN --images 40 asks for such images"
            )
        yield from (f"not readable: {key}: {why}" for key, why in self.unreadable.items())
        yield (
            f"next round: models.detector: {{backend: trained, checkpoint: {self.folder}}}, other run and export names"
        )
