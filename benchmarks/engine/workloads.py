"""What is compared: model sets, images and boxes, the packages' loop and Vouch's steps over them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from benchmarks.campaigns import copy_samples, run_bare, sample_classes, write_campaign
from benchmarks.engine.baseline import TEXT_THRESHOLD, BaselineModels, embed_texts, score_box, segment_boxes
from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig, ModelsConfig, ScorerConfig, SegmenterConfig
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.models.registry import (
    DETECTORS,
    Detector,
    Floats,
    Phrase,
    Pixels,
    RawDetections,
    load_detector,
    load_scorer,
    load_segmenter,
)
from vouch_labels.tasks.models.runtime import Runtime, choose_runtime
from vouch_labels.tasks.score import Score
from vouch_labels.tasks.segment import Segment

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn
    from transformers import ZeroShotObjectDetectionPipeline

LARGE_PICTURE: Final = (1333, 800)
"""Of the pictures for full-size models, as large as the detector takes them."""
CLASSES: Final = 10
LOOP_IMAGES: Final = 16
"""Most images of a candidate that takes one after the other, whose speed does not depend on how many they are."""

SEED: Final = 6
LOOP: Final = "loop, {}"
VOUCH: Final = "Vouch {}, {}"
FOLDER: Final = "Vouch fast, from a folder"
IN_TURN: Final = "Vouch fast, from a folder, overlap off"
S3: Final = "Vouch fast, from S3 on loopback"
PIPELINE: Final = "transformers' pipeline, fp32"
STEPS: Final = ("detect", "segment", "score")
COMPILED: Final = ", compiled"

MODES: Final = ("fp32", "TF32", "bf16 autocast")
"""How the loop computes; the last two on CUDA alone."""
_TF32: Final = {"fp32": (False, False), "TF32": (True, True)}
_AS_TORCH_HAS_IT: Final = (False, True)
"""Whether products of matrices and convolutions may be computed in TF32."""

SWIN_T: Final = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}

BACKEND: Final = "groundingdino, fixed boxes"
COLUMNS: Final = 5
ROWS: Final = 2
BOXES: Final = COLUMNS * ROWS
_FILLED: Final = 0.7
_SCORE: Final = 0.9


class Setting(BaseModel):
    """The same for all candidates; small, so that it can travel to a process of its own."""

    name: str
    """Of the model set."""
    config: ModelsConfig
    folder: Path
    """Of the pictures."""
    images: int
    """Pictures that are labelled from memory; there may be more files."""
    classes: list[str]

    @property
    def full_size(self) -> bool:
        """Whether the models are full-size ones."""
        return self.name != STARTER.name

    def files(self) -> list[Path]:
        """All pictures, in order."""
        return sorted(self.folder.rglob("*.jpg"))


def prepare(name: str, folder: Path, images: int, files: int) -> Setting:
    """Make models and pictures.

    Args:
        name: Of SETS.
        folder: Gets both.
        images: Pictures that are labelled from memory.
        files: Pictures that are labelled from files, at least as many.
    """
    setting = Setting(
        name=name,
        config=write_models(SETS[name], folder),
        folder=folder / "images",
        images=images,
        classes=sample_classes()[:CLASSES],
    )
    copies = copy_samples(setting.folder, files)
    if setting.full_size:
        _enlarge(copies)
    return setting


def _enlarge(files: list[Path]) -> None:
    from PIL import Image

    for file in files:
        with Image.open(file) as opened:
            opened.convert("RGB").resize(LARGE_PICTURE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)


@dataclass(frozen=True)
class ModelSet:
    """Names of architectures; None each for the bundled models."""

    name: str
    detector: str | None = None
    segmenter: str | None = None
    scorer: str | None = None


STARTER: Final = ModelSet("starter")
FULL_SIZE: Final = (
    ModelSet("Swin-T + ViT-B + B/32", "swin_t", "vit_b", "ViT-B-32"),
    ModelSet("Swin-T + ViT-H + L/14", "swin_t", "vit_h", "ViT-L-14"),
)
SETS: Final = {each.name: each for each in (STARTER, *FULL_SIZE)}


def write_models(chosen: ModelSet, folder: Path) -> ModelsConfig:
    """Make the checkpoints of a set, where it is not the bundled one.

    Args:
        chosen: Its weights are random, by a fixed seed: speed does not depend on them.
        folder: Gets up to 5 GB.

    Returns:
        Settings that all candidates load. Presence is off, since the loop has nothing of the kind.
    """
    if chosen.detector is None or chosen.segmenter is None or chosen.scorer is None:
        return ModelsConfig(scorer=ScorerConfig(presence=False))
    from vouch_labels.tasks.models.checkpoints import STARTER as BUNDLED
    from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture
    from vouch_labels.tasks.models.open_clip.build import build_model, find_architecture
    from vouch_labels.tasks.models.sam.build import build_sam

    # Its vocabulary is smaller than the model's: each text has about as many tokens all the same.
    tokenizer = BUNDLED / "tokenizer"
    detector, segmenter, scorer = chosen.detector, chosen.segmenter, chosen.scorer
    return ModelsConfig(
        detector=DetectorConfig(
            checkpoint=_saved(
                folder / "detector.pt", lambda: build_groundingdino(read_architecture(detector).model_dump(), tokenizer)
            ),
            architecture=detector,
            text_encoder=str(tokenizer),
        ),
        segmenter=SegmenterConfig(
            checkpoint=_saved(folder / "segmenter.pt", lambda: build_sam(segmenter)), architecture=segmenter
        ),
        scorer=ScorerConfig(
            checkpoint=_saved(folder / "scorer.pt", lambda: build_model(find_architecture(scorer))),
            architecture=scorer,
            presence=False,
        ),
    )


def _saved(file: Path, build: Callable[[], "nn.Module | Any"]) -> str:
    import torch

    torch.manual_seed(SEED)
    torch.save(build().state_dict(), file)
    return str(file)


class Candidate(NamedTuple):
    """A candidate to do some work on images."""

    images: int
    mode: str
    """fp32, TF32 or bf16: what its share of the device's peak is taken of."""
    work: Callable[[], object]


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


class Workloads:
    """All workloads on one setting, in this process."""

    def __init__(self, setting: Setting) -> None:
        """Load nothing yet."""
        self.setting = setting
        self.runtime = choose_runtime(setting.config)
        self.device = self.runtime.device
        self.on_gpu = self.device.startswith("cuda")
        self.modes = MODES if self.on_gpu else MODES[:1]

    @property
    def device_name(self) -> str:
        """For people."""
        import torch

        return torch.cuda.get_device_name(self.device) if self.on_gpu else f"CPU, {torch.get_num_threads()} threads"

    @cached_property
    def pictures(self) -> list["Image.Image"]:
        """Decoded, RGB."""
        from PIL import Image

        return [Image.open(file).convert("RGB") for file in self.setting.files()[: self.setting.images]]

    @cached_property
    def arrays(self) -> list["Pixels"]:
        """The same as arrays."""
        return [np.asarray(picture) for picture in self.pictures]

    @cached_property
    def baseline(self) -> "BaselineModels":
        """The packages' models."""
        from benchmarks.engine.baseline import load_baseline_models

        return load_baseline_models(self.device, self.setting.config)

    @cached_property
    def steps(self) -> dict[str, Steps]:
        """Vouch's steps, by name."""
        kinds = [("reference", "fp32", False), ("fast", "fp32", False)]
        # Not every GPU has bf16.
        if self.on_gpu and self.runtime.precision == "bf16":
            kinds += [("reference", "bf16", False), ("fast", "bf16", False)]
        if self.on_gpu:
            kinds.append(("fast", self.runtime.precision, True))
        return {
            VOUCH.format(engine + COMPILED * compiles, precision): self.steps_of(
                engine=engine, precision=precision, compile="on" if compiles else "off"
            )
            for engine, precision, compiles in kinds
        }

    def steps_of(self, images: int | None = None, **changes: object) -> Steps:
        """Vouch's steps with other fields in the models' settings, on the first images."""
        return Steps(self.setting.config.model_copy(update=changes), self.setting.classes, self.arrays[:images])

    def in_memory(self) -> dict[str, Candidate]:
        """Decoded images to masks and scores."""
        few = min(LOOP_IMAGES, self.setting.images)
        loops = {
            LOOP.format(mode): self._candidate(few, mode, lambda: self._loop(self.pictures[:few]))
            for mode in self.modes
        }
        return loops | self.by_step("all")

    def by_step(self, step: str) -> dict[str, Candidate]:
        """One of Vouch's steps, or all."""
        return {
            name: self._candidate(self.setting.images, name.rpartition(" ")[2], getattr(steps, step))
            for name, steps in self.steps.items()
        }

    def pipeline(self) -> dict[str, Candidate]:
        """Detection by transformers' pipeline, for full-size models on a GPU."""
        if not (self.on_gpu and self.setting.full_size):
            return {}
        from vouch_labels.tasks.models.checkpoints import STARTER

        few = min(LOOP_IMAGES, self.setting.images)
        pipe = pipeline_of(STARTER / "tokenizer", self.device)
        return {PIPELINE: self._candidate(few, "fp32", detect(pipe, self.pictures[:few], self.setting.classes))}

    def on_files(self, folder: Path) -> dict[str, Candidate]:
        """From files to JSON, or to the COCO export.

        Args:
            folder: Gets what they write.
        """
        files = self.setting.files()
        few = files[:LOOP_IMAGES]
        loops = {
            LOOP.format(mode): self._candidate(len(few), mode, lambda: self._loop_on_files(few, folder / "loop.json"))
            for mode in self.modes
        }
        candidates = loops | {FOLDER: self.whole(folder)}
        return candidates | ({IN_TURN: self.whole(folder, switched_off=("overlap",))} if self.on_gpu else {})

    def whole(
        self, folder: Path, uri: str | None = None, options: dict[str, object] | None = None, **changes: object
    ) -> Candidate:
        """The whole job by Vouch, from the pictures or from a copy of them in a bucket.

        Args:
            folder: Gets the workspaces.
            uri: Of the bucket.
            options: How to speak to it.
            changes: Fields of the models' settings; by default they compute as a long run does: compiled on a GPU.
        """
        models = self.setting.config.model_copy(update={"compile": "on" if self.on_gpu else "off"} | changes)
        source = uri or str(self.setting.folder)

        def run() -> None:
            label_files(source, Path(mkdtemp(dir=folder)), models, self.setting.classes, options or {})

        return self._candidate(len(self.setting.files()), self.runtime.precision, run)

    def _loop(self, pictures: list["Image.Image"]) -> None:
        run_loop(pictures, self.setting.classes, self.baseline, self.setting.config.scorer.contexts)

    def _loop_on_files(self, files: list[Path], out: Path) -> None:
        run_loop_on_files(files, self.setting.classes, self.baseline, self.setting.config.scorer.contexts, out)

    def _candidate(self, images: int, mode: str, work: Callable[[], object]) -> Candidate:
        # Vouch in fp32 forbids TF32 for the whole process and for good.
        def run() -> None:
            with computing(mode, self.device):
                work()

        return Candidate(images, mode.partition(" ")[0], run)


@contextmanager
def computing(mode: str, device: str) -> Iterator[None]:
    """Let torch compute in a mode while the block runs.

    Args:
        mode: One of MODES; or bf16, for what has an autocast of its own. In both kinds of bf16, what stays in fp32 is
            as torch has it.
        device: cpu or cuda:N.
    """
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32, convolutions.allow_tf32 = _TF32.get(mode, _AS_TORCH_HAS_IT)
    try:
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=mode == "bf16 autocast"):
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def run_loop(
    images: Sequence["Image.Image"], classes: Sequence[str], models: BaselineModels, contexts: Sequence[float]
) -> list[dict[str, Any]]:
    """Detect, then mask and score the ten fixed boxes of each image.

    Args:
        images: RGB.
        classes: Joined to one caption.
        models: The packages' models.
        contexts: Sizes of the crops of each box, as multiples of the box; one call of CLIP each.

    Returns:
        A COCO annotation a box, without ids.
    """
    import torch
    from groundingdino.util.inference import predict

    config = DetectorConfig()
    caption = ". ".join(classes)
    texts = embed_texts(classes, models)
    annotations: list[dict[str, Any]] = []
    for image in images:
        inputs, _ = models.transform(image, None)
        predict(models.detector, inputs, caption, config.min_score, TEXT_THRESHOLD, models.device)
        boxes = torch.from_numpy(fixed_boxes(image.width, image.height))
        masks = segment_boxes(np.asarray(image), boxes, models)
        for index, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
            probabilities = [score_box(image, _wider(box, context), texts, models) for context in contexts]
            annotations.append(
                {
                    "category_id": index % len(classes),
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "segmentation": mask,
                    "clip": [each[index % len(classes)] for each in probabilities],
                }
            )
    return annotations


def run_loop_on_files(
    files: Sequence[Path], classes: Sequence[str], models: BaselineModels, contexts: Sequence[float], out: Path
) -> None:
    """The same from files to a JSON file, opening one image after the other."""
    from PIL import Image

    annotations = []
    for file in files:
        with Image.open(file) as opened:
            annotations += run_loop([opened.convert("RGB")], classes, models, contexts)
    out.write_text(json.dumps(annotations), encoding="utf-8")


def _wider(box: "torch.Tensor", context: float) -> "torch.Tensor":
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * context
    import torch

    return torch.cat([centre - half, centre + half])


def _check(results: Sequence[object]) -> None:
    from vouch_labels.schemas.records import Failed

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

    from benchmarks.campaigns import client_of

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


def pipeline_of(
    tokenizer: Path, device: str, sizes: Mapping[str, object] | None = None, shortest: int = 800
) -> "ZeroShotObjectDetectionPipeline":
    """Build the pipeline offline.

    Args:
        tokenizer: Folder of a BERT tokenizer.
        device: cpu or cuda:N.
        sizes: Fields of transformers' GroundingDinoConfig; by default those of GroundingDINO with Swin-T.
        shortest: Pixels of the shorter side that images are resized to.
    """
    import torch
    from transformers import (
        AutoTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        SwinConfig,
        pipeline,
    )

    torch.manual_seed(SEED)
    swin = SwinConfig(image_size=224, out_indices=[2, 3, 4], **SWIN_T)
    model: Any = GroundingDinoForObjectDetection(GroundingDinoConfig(**{"backbone_config": swin, **(sizes or {})}))
    return pipeline(
        "zero-shot-object-detection",
        model=model.eval(),
        image_processor=GroundingDinoImageProcessor(
            size={"shortest_edge": shortest, "longest_edge": shortest * 5 // 3}
        ),
        tokenizer=AutoTokenizer.from_pretrained(str(tokenizer)),
        device=device,
    )


def detect(
    pipe: "ZeroShotObjectDetectionPipeline", images: Sequence["Image.Image"], classes: Sequence[str]
) -> Callable[[], None]:
    """Detection of all images, as the pipeline is called: it runs the model once for each class."""

    def run() -> None:
        for image in images:
            pipe(image, candidate_labels=list(classes), threshold=0.3)

    return run


def register() -> None:
    """Let campaigns of this process name the backend."""
    DETECTORS[BACKEND] = f"{__name__}:load"


def load(config: DetectorConfig, runtime: Runtime) -> "FixedBoxes":
    """Load GroundingDINO behind the fixed boxes."""
    return FixedBoxes(load_detector(config.model_copy(update={"backend": "groundingdino"}), runtime))


class FixedBoxes:
    """A detector that works and is not listened to."""

    def __init__(self, detector: Detector) -> None:
        """Take the detector that does the work."""
        self._detector = detector
        self.fingerprint = f"fixed boxes, {detector.fingerprint}"

    def check(self, phrases: Sequence[Phrase]) -> None:
        """As the detector behind."""
        self._detector.check(phrases)

    def tokens(self, text: str) -> tuple[str, ...]:
        """As the detector behind."""
        return self._detector.tokens(text)

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Detect, then give ten boxes an image, each of another class as far as there are so many."""
        self._detector.detect(images, phrases, min_score)
        scores = np.zeros((BOXES, len(phrases)), np.float32)
        scores[np.arange(BOXES), np.arange(BOXES) % len(phrases)] = _SCORE
        return [RawDetections(fixed_boxes(image.shape[1], image.shape[0]), scores) for image in images]


def fixed_boxes(width: int, height: int) -> Floats:
    """(10, 4) xyxy in pixels: a grid of five by two that leaves gaps."""
    rows, columns = np.divmod(np.arange(BOXES), COLUMNS)
    cell = np.array([width / COLUMNS, height / ROWS])
    low = np.stack([columns, rows], axis=1) * cell + cell * (1 - _FILLED) / 2
    return np.concatenate([low, low + cell * _FILLED], axis=1).astype(np.float32)
