"""Vouch's steps on images in memory, and the whole job on files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.campaigns import write_campaign
from benchmarks.engine.fixed_boxes import BACKEND, fixed_boxes
from benchmarks.jobs import run_bare
from schemas.campaign import ClassConfig, ModelsConfig
from tasks.detect import Detect
from tasks.models.registry import Floats, Pixels, load_detector, load_scorer, load_segmenter
from tasks.models.runtime import choose_runtime
from tasks.score import Score
from tasks.segment import Segment


class Steps:
    """Detect, segment and score with one engine, each loaded when it is first called."""

    def __init__(self, config: ModelsConfig, classes: Sequence[str], images: Sequence[Pixels]) -> None:
        """Take what is to be done; the ten boxes are those of `fixed_boxes`."""
        self._config = config
        self._runtime = choose_runtime(config)
        self._classes = [ClassConfig(name=name) for name in classes]
        self.images = list(images)
        self._boxes: list[Floats] = [fixed_boxes(image.shape[1], image.shape[0]) for image in images]
        self._indices: list[NDArray[np.int64]] = [np.arange(len(each)) % len(classes) for each in self._boxes]
        self._detect: Detect | None = None
        self._segment: Segment | None = None
        self._score: Score | None = None

    def detect(self) -> None:
        """Find objects in all images."""
        if self._detect is None:
            detector = load_detector(self._config.detector, self._runtime)
            self._detect = Detect(detector, self._classes, self._config.detector)
        self._detect(self.images)

    def segment(self) -> None:
        """Mask the ten boxes of every image."""
        if self._segment is None:
            self._segment = Segment(load_segmenter(self._config.segmenter, self._runtime))
        _check(self._segment(self.images, self._boxes))

    def score(self) -> None:
        """Score two crops of each of the ten boxes of every image."""
        if self._score is None:
            self._score = Score(load_scorer(self._config.scorer, self._runtime), self._classes, self._config.scorer)
        _check(self._score(self.images, self._boxes, self._indices))

    def all(self) -> None:
        """All three, one after the other."""
        self.detect()
        self.segment()
        self.score()


def _check(results: Sequence[object]) -> None:
    from schemas.records import Failed

    failed = [result for result in results if isinstance(result, Failed)]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(results)} images failed: {failed[0].reason}")


def label_files(
    source: str, folder: Path, config: ModelsConfig, classes: Sequence[str], options: dict[str, object]
) -> None:
    """The whole job, from the files of a source to the COCO export, with the ten boxes.

    Args:
        source: A folder or s3:// uri.
        folder: Gets the campaign and the workspace; fresh.
        config: The models.
        classes: Their names.
        options: S3 options of the source.
    """
    models = config.model_dump(mode="json")
    models["detector"]["backend"] = BACKEND
    campaign = write_campaign(
        folder, Path("unused"), source={"uri": source, "s3": options}, classes=list(classes), models=models
    )
    summary = run_bare(campaign)
    if summary.failed or not summary.done:
        raise RuntimeError(f"{summary.failed} of {summary.images} images failed: {summary.reasons}")


@contextmanager
def uploaded(files: Sequence[Path], endpoint: str) -> Iterator[str]:
    """A bucket that holds some files while the block runs; gives its uri."""
    import uuid

    from benchmarks.bucket import client_of

    client, bucket = client_of(endpoint), f"vouch-bench-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    keys = [f"{number:06d}{file.suffix}" for number, file in enumerate(files)]
    try:
        for key, file in zip(keys, files, strict=True):
            client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
        yield f"s3://{bucket}"
    finally:
        for key in keys:
            client.delete_object(Bucket=bucket, Key=key)
        client.delete_bucket(Bucket=bucket)
