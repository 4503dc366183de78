"""One image on its way through the steps."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.records import Failed, ImageRef
from tasks.acquire.decode import DecodedImage
from tasks.arrow import boxes_of
from tasks.detect.detections import Detections
from tasks.models.registry import Floats, Masks, Pixels
from tasks.score.presence import Present
from tasks.score.scores import Scores


@dataclass(slots=True)
class Work:
    """What is known of one image: results as they come, or what an earlier marker already holds."""

    ref: ImageRef
    image: DecodedImage | None = None
    failed: Failed | None = None
    kept: dict[str, pa.Table] = field(default_factory=dict)
    """Stage -> this image's rows of an earlier marker, which need no computing."""
    detections: Detections | None = None
    masks: Masks | None = None
    scores: Scores | None = None
    presence: Present | None = None
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    class_indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def pixels(self) -> Pixels:
        """The decoded image, which every step before the router has."""
        if self.image is None:
            raise ValueError(f"{self.ref.key} has no pixels")
        return self.image.pixels

    def forget(self) -> None:
        """Let go of what the steps found, so that they can be run again."""
        self.detections = self.masks = self.scores = self.presence = None

    def take_boxes(self, class_names: list[str]) -> None:
        """Fill boxes and classes from the detections, or from rows that were kept."""
        if self.detections is not None:
            self.boxes, self.class_indices = self.detections.boxes, self.detections.class_indices
            return
        rows = self.kept["detect"]
        self.boxes = boxes_of(rows)
        places = {name: index for index, name in enumerate(class_names)}
        self.class_indices = np.array([places[name] for name in rows["class_name"].to_pylist()], np.int64)
