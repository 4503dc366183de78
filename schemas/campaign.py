"""Defines the campaign file as Pydantic models: one model a section, `Campaign` for the whole.

Every model is described, closed to unknown keys and immutable. The file says where the images come from and where
results go (storage), what is to be found (classes, prompts, hard negatives, thresholds), by which models on which
device and with which speed-ups, which labels are accepted without a person, how people review, and what is exported.
The signals that a threshold may name are the columns of the tables in schemas/tables.py.
"""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

SHA256 = r"^[0-9a-f]{64}$"
BatchSize = Literal["auto"] | Annotated[int, Field(ge=1, le=8192)]

IMAGE_SUFFIXES: Final = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "tif", "tiff", "bmp", "dib", "gif"),
    *("heic", "heif", "hif", "avif", "jp2", "j2k", "jpx"),
)
IMAGE_GLOBS: Final = tuple(f"**/*.{suffix}" for suffix in IMAGE_SUFFIXES)
"""What source.include holds by default; then files without an extension are looked into as well."""

Gate = Literal["delivered", "accepted"]
Unsampled = Literal["accept", "review"]

EMBEDDED = "embedded"
_SCHEMES = ("mongodb://", "mongodb+srv://")


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class S3Options(Strict):
    """How to speak to an S3-compatible store; credentials come from boto3's own chain, never from here."""

    endpoint_url: str | None = Field(
        None, examples=["https://s3.example.org"], description="Endpoint of an S3-compatible store; empty for AWS."
    )
    region: str | None = Field(
        None, examples=["eu-central-1"], description="Region name; empty for boto3's own choice."
    )
    path_style: bool = Field(False, description="Address buckets as host/bucket, not bucket.host.")
    checksums: Literal["when_supported", "when_required"] = Field(
        "when_supported",
        description="Request and response checksums; other vendors often need when_required.",
    )
    threads: int = Field(32, ge=1, le=256, description="Concurrent requests; the connection pool is as large.")
    connect_timeout_s: float = Field(5.0, gt=0, description="Seconds to wait for a connection.")
    read_timeout_s: float = Field(60.0, gt=0, description="Seconds to wait for the next bytes of an answer.")
    max_attempts: int = Field(5, ge=1, le=20, description="Attempts of one request, the first included.")
    retry_mode: Literal["standard", "adaptive"] = Field("standard", description="boto3's retry mode.")


class Location(Strict):
    """A folder or an s3://bucket/prefix; a plain string stands for its uri alone."""

    uri: str = Field(
        min_length=1,
        examples=["./images"],
        description="s3://bucket/prefix, or a folder relative to the campaign file.",
    )
    s3: S3Options = Field(S3Options(), description="How to speak to the S3-compatible store.")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"uri": value} if isinstance(value, str) else value


VIDEO_SUFFIXES: Final = ("mp4", "m4v", "mov", "3gp", "mkv", "webm", "avi", "mpg", "mpeg", "mts", "m2ts", "wmv")


class VideoOptions(Strict):
    """Which frames of videos are images to label."""

    frames_per_second: float = Field(1.0, gt=0, le=1000, description="Frames taken of each second.")
    scene_change: float | None = Field(
        None,
        gt=0,
        lt=1,
        examples=[0.1],
        description="Of these take only those that differ from the one taken before: share of the range of brightness, "
        "on average over the picture. Videos are decoded once for it.",
    )


class Source(Location):
    """The images to label."""

    include: tuple[str, ...] = Field(
        IMAGE_GLOBS, description="Globs of keys to take, relative to the uri, matched without regard to case."
    )
    exclude: tuple[str, ...] = Field(
        (), examples=[["**/thumbnails/**"]], description="Globs of keys to leave out, after include."
    )
    manifest: str | None = Field(
        None,
        examples=["s3://bucket/manifest.parquet"],
        description="File that names the keys instead of a listing: .txt, .csv, .jsonl or .parquet, "
        "local or s3://, with a column key and optionally etag and size.",
    )
    image_column: str | None = Field(
        None,
        examples=["image"],
        description="Column of Parquet files that holds the images; empty: the one that Hugging Face's metadata, or "
        "its type and name, tell.",
    )
    video: VideoOptions | None = Field(None, description="Which frames of videos are taken; empty: videos are skipped.")
    max_image_mb: float = Field(100.0, gt=0, description="Larger files fail with a reason; megabytes.")
    max_pixels: int = Field(
        120_000_000, gt=0, description="Images of more pixels fail with a reason (decompression bombs)."
    )


class Workspace(Location):
    """Where plans, label tables, policies and exports are kept."""


class Thresholds(Strict):
    """Least value of each signal named here, at least one; a label is accepted when all of them hold."""

    detector_score: float | None = Field(None, ge=0, le=1, examples=[0.6], description="Detector score of the class.")
    detector_margin: float | None = Field(
        None, ge=-1, le=1, examples=[0.1], description="Detector score of the class less that of the second class."
    )
    sam_iou: float | None = Field(None, ge=0, le=1, examples=[0.85], description="IoU that SAM predicts for its mask.")
    mask_stability: float | None = Field(
        None, ge=0, le=1, examples=[0.9], description="IoU of the mask cut at a higher and at a lower logit."
    )
    mask_box_iou: float | None = Field(
        None, ge=0, le=1, examples=[0.7], description="IoU of the box and the mask's own box."
    )
    clip_probability: float | None = Field(
        None, ge=0, le=1, examples=[0.8], description="CLIP probability of the class on the crop."
    )
    clip_margin: float | None = Field(
        None, ge=-1, le=1, examples=[0.3], description="CLIP probability of the class less that of the best other text."
    )

    @model_validator(mode="after")
    def _names_one(self) -> "Thresholds":
        if not self.required():
            raise ValueError("names no signal, which would accept everything; give at least one least value")
        return self

    def required(self) -> dict[str, float]:
        """The signals asked for, with their least values, in the order declared."""
        return {name: value for name, value in self if value is not None}


class ClassConfig(Strict):
    """One class of the data set; a plain string stands for its name alone."""

    name: str = Field(min_length=1, max_length=200, examples=["cat"], description="Name of the category in the export.")
    prompts: tuple[str, ...] = Field(
        (),
        examples=[["cat", "kitten"]],
        description="Texts that the detector looks for and CLIP compares with; the name when empty.",
    )
    negatives: tuple[str, ...] = Field(
        (),
        examples=[["dog", "fox"]],
        description="Texts of look-alikes: an object that fits one of them better is not of this class.",
    )
    was: tuple[str, ...] = Field(
        (),
        examples=["cat"],
        description="Name under which this class was labelled before: labels, reviews and certificates stay. A list "
        "makes one class of several, and their reviews count for it. Without prompts these names are the prompts.",
    )
    caption: int = Field(
        0,
        ge=0,
        description="Classes of one number are asked for together, in a caption of their own. A class that is added "
        "with another number leaves what the detector found for the others as it is.",
    )
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        examples=[0.35],
        description="Detector score below which no label is made; models.detector's when empty.",
    )
    accept: Thresholds | None = Field(
        None, description="Signals a label of this class needs to be accepted; routing.accept when empty."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _stripped(cls, value: str) -> str:
        name = value.strip()
        if not name or any(unicodedata.category(letter) in {"Cc", "Zl", "Zp"} for letter in name):
            raise ValueError("the name of a class must be one line of text")
        return name

    @field_validator("was", mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("prompts", "negatives", "was")
    @classmethod
    def _texts_stripped(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        texts = tuple(text.strip() for text in value)
        if not all(texts):
            raise ValueError("an empty prompt finds nothing; remove it")
        return tuple(dict.fromkeys(texts))

    @property
    def texts(self) -> tuple[str, ...]:
        """The positive prompts; without any the names that the class had, else its own."""
        return self.prompts or self.was or (self.name,)

    @property
    def key(self) -> str:
        """The name that its labels carry in the workspace: a renamed class keeps the one that it was labelled under."""
        return self.was[0] if len(self.was) == 1 else self.name


SWITCHES: Final = {
    "static_shapes": "GroundingDINO: shapes are Python ints; window masks, grids and sine embeddings are kept",
    "folded_fusion": "GroundingDINO: the image side of the fusion is folded into text-side matrices",
    "fused_attention": "GroundingDINO: attention of windows, text and decoder runs as one kernel",
    "deformable": "GroundingDINO: deformable attention by a kernel of its own on GPUs, rearranged elsewhere",
    "late_heads": "GroundingDINO: boxes are made for the best 900 queries only, final heads run on the last layer",
    "device_token_scores": "GroundingDINO: scores of phrases are taken from the token logits on the device",
    "fused_relpos": "SAM: relative positions are kept, the encoder's attention runs as one kernel",
    "pooled_decoder": "SAM: the boxes of all images of a batch go through the mask decoder together",
    "device_masks": "SAM: masks are scaled, cut and run-length encoded on the device",
    "folded_scorer": "CLIP: norms are folded into convolutions, attention pooling projects the pooled token only",
    "device_crops": "CLIP: crops are cut and resized on the GPU",
    "channels_last": "all: convolutions see memory in the order that the device likes best",
    "overlap": "all: results are laid out and written while the models look at the next images",
}
"""Switch -> what it does; each is on unless the campaign's models.switched_off names it."""


def known_switch(name: str) -> str:
    """Give the name of a switch back; a ValueError names the nearest if there is no such switch."""
    if name in SWITCHES:
        return name
    near = difflib.get_close_matches(name, SWITCHES, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"use some of {', '.join(SWITCHES)}"
    raise ValueError(f"{name!r} is no switch; {hint}")


Switch = Annotated[str, AfterValidator(known_switch), Field(json_schema_extra={"enum": [*SWITCHES]})]


def _on_or_off(value: object) -> object:
    """YAML reads a bare on or off as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Checkpoint(Strict):
    """What every model has: a backend and the file with its weights."""

    checkpoint: str = Field(
        "starter",
        min_length=1,
        description="'starter' (bundled), an official name (`vouch models list`), a path, s3://bucket/key, "
        "or hf://owner/repo[@revision]/file.",
    )
    sha256: str | None = Field(
        None,
        pattern=SHA256,
        examples=["0" * 64],
        description="SHA-256 the file must have; known for bundled and official ones.",
    )
    architecture: str | None = Field(
        None,
        examples=["vit_b"],
        description="Architecture name or JSON file; empty: the checkpoint's own (bundled, official).",
    )


class DetectorConfig(Checkpoint):
    """Boxes for class prompts."""

    backend: str = Field(
        "groundingdino",
        description="groundingdino, transformers, trained (a folder of `vouch train`), none (imported labels alone), "
        "or fake.",
    )
    text_encoder: str | None = Field(
        None,
        examples=["./tokenizer"],
        description="Tokenizer folder or hub name; empty: the one that belongs to the checkpoint.",
    )
    batch_size: BatchSize = Field(
        "auto",
        description="Images of one resized size in one forward pass; auto: as many as the GPU's memory takes, 8 on a "
        "CPU.",
    )
    min_score: float = Field(0.30, ge=0, le=1, description="Score below which no label is made.")
    nms_iou: float = Field(
        0.70,
        gt=0,
        le=1,
        description="Boxes that overlap more, of any class, are one object: best score wins.",
    )
    max_boxes: int = Field(300, ge=1, le=900, description="Most labels of one image, best scores first.")


class SegmenterConfig(Checkpoint):
    """Masks for boxes."""

    backend: str = Field("sam", description="sam, or fake.")
    batch_size: BatchSize = Field(
        "auto",
        description="Images encoded in one forward pass; auto: as many as the GPU's memory takes, 4 on a CPU.",
    )


class ScorerConfig(Checkpoint):
    """How well a crop fits its class, by CLIP."""

    backend: str = Field("open_clip", description="open_clip, or fake.")
    batch_size: BatchSize = Field(
        "auto",
        description="Crops embedded in one forward pass; auto: as many as the GPU's memory takes, 256 on a CPU.",
    )
    contexts: tuple[float, float] = Field((1.0, 1.5), description="Sizes of the two crops, as multiples of the box.")
    templates: Literal["plain", "photo", "imagenet"] | tuple[str, ...] = Field(
        "photo", description="Prompt templates averaged per text: a preset, or your own with one {} each."
    )
    background: tuple[str, ...] = Field(
        ("background", "texture", "a blurry picture of nothing"),
        description="Texts of what is no object at all; they compete with the classes.",
    )
    temperature: float | None = Field(
        None, gt=0, examples=[0.01], description="Softmax temperature of cosine similarities; empty: the model's own."
    )
    presence: bool = Field(
        True,
        description="Look at whole images too, five crops each, for classes without a label; what is seen is asked "
        "for as a possible miss. About 5 % of the time with the bundled models on a CPU.",
    )


class ModelsConfig(Strict):
    """The three models."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the GPU has it, else fp32."
    )
    engine: Literal["fast", "reference"] = Field(
        "fast",
        description="fast: all that makes the models faster, with equal results; reference: the packages' own "
        "forward, to compare with.",
    )
    switched_off: tuple[Switch, ...] = Field(
        (),
        examples=[["folded_fusion"]],
        description=f"What of engine: fast is left out, to find where a difference comes from: {', '.join(SWITCHES)}.",
    )
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = Field(
        "auto", description="torch.compile; auto: on CUDA, once a run has gone on long enough to gain by it."
    )
    cpu_threads: int | None = Field(None, ge=1, examples=[4], description="torch's CPU threads; empty: torch's choice.")
    detector: DetectorConfig = Field(DetectorConfig(), description="Boxes for class prompts.")
    segmenter: SegmenterConfig = Field(SegmenterConfig(), description="Masks for boxes.")
    scorer: ScorerConfig = Field(ScorerConfig(), description="CLIP scores for crops.")

    @property
    def bundled(self) -> tuple[str, ...]:
        """The models that are the bundled ones, which know drawn things and nothing else."""
        models: dict[str, DetectorConfig | SegmenterConfig | ScorerConfig] = {
            "detector": self.detector,
            "segmenter": self.segmenter,
            "scorer": self.scorer,
        }
        return tuple(
            kind for kind, model in models.items() if model.checkpoint == "starter" and model.backend != "fake"
        )


class RoutingConfig(Strict):
    """Nothing is accepted unless a threshold here, or a policy, allows it."""

    precision: float = Field(
        0.95, gt=0.5, lt=1, description="Share of labels that must be correct: what `vouch certify` guarantees."
    )
    confidence: float = Field(
        0.9, ge=0.5, lt=1, description="Confidence of that guarantee, for all groups of classes together."
    )
    gate: Gate = Field(
        "accepted",
        description="What the guarantee is about: the labels that no person looked at (accepted), or all labels of the "
        "data set once people have decided those that wait (delivered).",
    )
    missed: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        description="Share of the wrong labels that reviewers are assumed to miss at most; the guarantee says so, and "
        "honeypots measure it instead.",
    )
    unsampled: Unsampled = Field(
        "accept",
        description="What becomes of classes of which the validation sample holds no label: accepted with their group, "
        "whose guarantee is about it as a whole, or left to review. The exact test under gate accepted always leaves "
        "them to review.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn for review.")
    accept: Thresholds | None = Field(
        None,
        description="Signals a label needs to be accepted while no certified policy is active; empty: every label "
        "goes to review.",
    )
    policy: str | None = Field(
        None,
        examples=["certified-1-0a1b2c3d"],
        description="Version of a policy in the workspace (policies/<version>.json) to route by; empty: the one that "
        "`vouch apply` activated, if any; none: no policy, only the thresholds here.",
    )


class ReviewConfig(Strict):
    """The queue of `vouch review`."""

    batch: int = Field(25, ge=1, le=500, description="Items that a reviewer takes at a time.")
    lease_minutes: float = Field(
        20.0,
        ge=2,  # the App gives a sign of life every minute
        le=24 * 60,
        description="Minutes without a sign of life after which others may take the items.",
    )
    second_reviews: float | None = Field(
        None,
        ge=0,
        le=1,
        examples=[0.2],
        description="Share of the labels to fit to, to certify and to audit that two people read, blind, to see "
        "what reviewers miss; not given: 0.2 from the second reviewer on.",
    )
    database: str = Field(
        EMBEDDED,
        description="embedded (one that `vouch review` runs itself), or a mongodb:// address without a "
        "password: VOUCH_MONGODB_URI holds the address with it and goes before this one.",
    )

    @field_validator("database")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value == EMBEDDED:
            return value
        if not value.startswith(_SCHEMES):
            raise ValueError("must be embedded, or an address that begins with mongodb:// or mongodb+srv://")
        # Up to the last @: a password that should have been escaped may hold any sign.
        if ":" in value.partition("://")[2].rpartition("@")[0]:
            raise ValueError("a password never stands in a campaign: put the whole address into VOUCH_MONGODB_URI")
        return value


class Splits(Strict):
    """Shares of images in train, val and test."""

    train: float = Field(0.8, ge=0, le=1, description="Share of images for training.")
    val: float = Field(0.1, ge=0, le=1, description="Share of images for validation.")
    test: float = Field(0.1, ge=0, le=1, description="Share of images for testing.")
    seed: int = Field(0, ge=0, description="Seed of the split; an image keeps its split when others come.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> "Splits":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, not {total:g}")
        return self


class Licence(Strict):
    """A licence of the images, as COCO names it."""

    name: str = Field(min_length=1, examples=["CC BY 4.0"], description="Name of the licence.")
    url: str = Field("", examples=["https://creativecommons.org/licenses/by/4.0/"], description="Address of its text.")


Format = Literal["coco", "parquet", "yolo", "voc", "lvis", "huggingface", "imagefolder", "webdataset", "fiftyone"]
Undecided = Literal["ignore", "drop_image", "blank", "drop", "include"]
Masks = Literal["rle", "polygons", "none"]

COCO_FORMATS: Final = frozenset({"coco", "parquet"})
"""Two forms of one data set: the same entries under the same ids."""
_CANNOT_IGNORE: Final = frozenset({"yolo"})
_IGNORES_BY_CLASS: Final = frozenset({"lvis"})
"""Formats that say of a whole image which classes are not to be judged, and nothing of a region."""
_MASKS: Final[dict[Format, tuple[Masks, ...]]] = {
    "coco": ("rle", "polygons", "none"),
    "parquet": ("rle", "none"),
    "yolo": ("none", "polygons"),
    "voc": ("none",),
    "lvis": ("polygons",),
    "huggingface": ("rle", "none"),
    "imagefolder": ("rle", "none"),
    "webdataset": ("rle", "polygons", "none"),
    "fiftyone": ("rle", "none"),
}
"""What a format holds of masks; first what it has by default."""
_WITH_IMAGES: Final = frozenset({"yolo", "voc", "imagefolder", "fiftyone"})
"""Formats whose readers look for the images beside the labels."""
_IMAGES_INSIDE: Final = frozenset({"huggingface", "webdataset"})
"""Formats whose files hold the images."""
_NOBODY_IGNORES: Final = frozenset({"voc", "huggingface", "imagefolder", "webdataset"})
"""Formats that can say that a region is to be ignored, which the trainers that read them do not heed."""


class ExportConfig(Strict):
    """Data sets for trainers."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        examples=["for-yolox"],
        description="Folder under workspace/exports; empty: named as the format.",
    )
    formats: tuple[Format, ...] = Field(
        ("coco",),
        min_length=1,
        description="coco: JSON; parquet: the same keys as columns of two tables; yolo: labels/ beside images/; "
        "voc: Pascal VOC XML; lvis: JSON; huggingface: Parquet with the images inside; imagefolder: metadata.jsonl "
        "beside the images; webdataset: tar files; fiftyone: a FiftyOneDataset. Each but coco and parquet is a data "
        "set by itself: a second one is NAME-FORMAT.",
    )
    preset: Literal["coco", "detectron2", "yolox", "rtdetr", "torchvision", "zero_based"] = Field(
        "coco", description="Trainer that will read COCO files: sets the category id that comes first."
    )
    undecided: Undecided | None = Field(
        None,
        examples=["drop_image"],
        description="Boxes waiting for review. ignore: regions that trainers ignore; drop_image: their images are left "
        "out; blank: grey in a copy of the image; drop: the boxes alone are left out; include: plain labels. "
        "Empty: ignore where readers of the format heed it (coco, parquet, lvis, fiftyone), else drop_image.",
    )
    masks: Masks | None = Field(
        None,
        examples=["polygons"],
        description="rle: pixel by pixel; polygons: along the edges of pixels; none. Empty: rle where the format has "
        "it, for yolo none (polygons are its segment labels).",
    )
    boxes: Literal["detector", "mask"] = Field(
        "detector",
        description="detector: as found, or as people drew them; mask: the extent of the mask, if any.",
    )
    images: Literal["none", "link", "copy"] | None = Field(
        None,
        examples=["copy"],
        description="Also put the images there: hard or symbolic links (folders only), or copies. Empty: links where "
        "readers need them beside the labels (yolo, voc, imagefolder, fiftyone), copies with a bucket; else none.",
    )
    splits: Splits | None = Field(None, description="Also write one file a split; empty: one file for all.")
    images_per_file: int | None = Field(
        None, ge=1, examples=[50_000], description="Images in one annotation file of COCO; empty: all in one."
    )
    description: str = Field("", description="Goes into the data set's info.")
    contributor: str = Field("", description="Goes into the data set's info.")
    licences: tuple[Licence, ...] = Field((), description="Licences of the images, the first is every image's.")

    @field_validator("undecided")
    @classmethod
    def _can_be_said(cls, value: Undecided | None, info: ValidationInfo) -> Undecided | None:
        unable = [one for one in info.data.get("formats", ()) if one in _CANNOT_IGNORE]
        if value == "ignore" and unable:
            raise ValueError(
                f"{unable[0]} cannot say that a region is to be ignored; use drop_image, blank, drop or include, or "
                "leave it empty"
            )
        return value

    @field_validator("masks")
    @classmethod
    def _has_such_masks(cls, value: Masks | None, info: ValidationInfo) -> Masks | None:
        for one in info.data.get("formats", ()):
            if value is not None and value not in _MASKS[one]:
                raise ValueError(f"{one} cannot hold {value}; it takes {' or '.join(_MASKS[one])}, or leave it empty")
        return value

    @field_validator("images")
    @classmethod
    def _has_its_images(cls, value: str | None, info: ValidationInfo) -> str | None:
        for one in info.data.get("formats", ()):
            if value == "none" and one in _WITH_IMAGES:
                raise ValueError(f"readers of {one} look for the images beside the labels; use link or copy")
            if value is not None and one in _IMAGES_INSIDE:
                raise ValueError(f"the files of {one} hold the images themselves; leave it empty")
        return value

    def data_sets(self, linkable: bool) -> "list[ExportConfig]":
        """One entry for every data set that is written, with nothing left empty that has a default.

        Args:
            linkable: Whether images may be links: source and workspace are folders.
        """
        groups: dict[str, list[Format]] = {}
        for one in dict.fromkeys(self.formats):
            groups.setdefault("coco" if one in COCO_FORMATS else one, []).append(one)
        found = []
        for place, (name, formats) in enumerate(groups.items()):
            heeded = name not in _CANNOT_IGNORE | _NOBODY_IGNORES
            undecided = self.undecided or ("ignore" if heeded else "drop_image")
            beside = name in _WITH_IMAGES or (undecided == "blank" and name not in _IMAGES_INSIDE)
            images = self.images or (("link" if linkable else "copy") if beside else "none")
            changes = {
                "name": name if self.name is None else self.name if place == 0 else f"{self.name}-{name}",
                "formats": tuple(formats),
                "undecided": undecided,
                "masks": self.masks or _MASKS[formats[0]][0],
                "images": images,
            }
            found.append(self.model_copy(update=changes))
        return found

    @property
    def can_ignore(self) -> bool:
        """Whether every format has regions to be ignored."""
        return not (_CANNOT_IGNORE | _IGNORES_BY_CLASS).intersection(self.formats)

    @property
    def first_name(self) -> str:
        """Name of the first data set."""
        return self.data_sets(linkable=True)[0].name or ""


def _runner(value: object) -> object:
    return "local" if value == "in_process" else value  # its name before there was another


def _share(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("must be a part of one GPU, such as 0.5, or a whole number")
    return value


NO_CLIENT: Final = (
    "Ray Client (ray://) carries no streams; run vouch on a node of the cluster with address: auto, as a Ray job for "
    "example"
)


class RayConfig(Strict):
    """The Ray cluster of `runner: ray`."""

    address: str = Field(
        "local",
        description="local: one that is started on this machine for the run; auto: the one that this machine is a node "
        "of, or that RAY_ADDRESS names; else HOST:PORT of its head.",
    )
    worker_start_s: float = Field(900, gt=0, description="A worker that takes longer to load its models is given up.")
    nowhere_s: float = Field(
        600, gt=0, description="The run ends when the cluster has had no place for any worker for so long."
    )

    @field_validator("address")
    @classmethod
    def _no_client(cls, value: str) -> str:
        if value.startswith("ray://"):
            raise ValueError(NO_CLIENT)
        host, _, port = value.rpartition(":")
        if value not in ("local", "auto") and not (host and port.isdecimal()):
            raise ValueError("must be local, auto or HOST:PORT")
        return value


class Tiles(Strict):
    """Tiles in which images larger than one are looked at; empty: images are looked at as a whole."""

    size: int = Field(1024, ge=64, le=16384, description="Width and height of a tile, in pixels of the image.")
    overlap: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="Share of a tile that its neighbours see too; objects not larger than it lie whole in some tile.",
    )
    whole: bool = Field(
        True, description="Look at the image as a whole too, which finds the objects larger than the overlap."
    )


class RunConfig(Strict):
    """Orchestration."""

    name: str = Field("main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Folder under workspace/runs.")
    shard_size: int = Field(1000, ge=1, le=100_000, description="Images in one unit of work.")
    runner: Annotated[Literal["local", "ray"], BeforeValidator(_runner)] = Field(
        "local", description="What processes the shards: this process, or workers on a Ray cluster."
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] = Field(
        "auto",
        description="With ray: how many workers; auto: as many as the cluster has room for, and more as it grows.",
    )
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0, le=64), AfterValidator(_share)] = Field(
        "auto",
        description="With ray: 0.5: two workers share a GPU; 0: they compute on the CPU; auto: 1, but 0 with "
        "models.device cpu, and on a local machine without a GPU.",
    )
    cpus_per_worker: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto",
        description="With ray: cores and threads of a worker; auto: 4, or what a local machine has for each.",
    )
    ray: RayConfig = Field(RayConfig(), description="With ray: the cluster.")
    retries: int = Field(2, ge=0, le=20, description="Times a failed shard is tried again.")
    retry_delay_s: float = Field(5.0, ge=0, description="Seconds before the first retry; doubled each time.")
    shard_timeout_s: float = Field(6 * 3600, gt=0, description="A shard that takes longer is given up.")
    tiles: Tiles | None = Field(None, description="Tiles for large images with small objects; empty: none.")
    fetch_threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto",
        description="Threads that fetch and decode ahead; auto: 8, and more as long as the models wait for images and "
        "more threads help, up to source.s3.threads.",
    )
    decode_memory_mb: int = Field(
        2048,
        ge=64,
        description="Memory that fetching and decoding may take, all threads together; MiB. "
        "An image that needs more than three quarters of it fails with a reason.",
    )


def _as_seen(name: str) -> str:
    """A name without what no reader sees: format characters such as zero-width ones, spelling of accents, spaces."""
    shown = (letter for letter in unicodedata.normalize("NFC", name) if not _is_invisible(letter))
    return " ".join("".join(shown).split()).casefold()


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f"


class Campaign(Strict):
    """What campaign.yaml says."""

    source: Source = Field(description="The images to label.")
    workspace: Workspace = Field(description="Where plans, labels, policies and exports are kept.")
    classes: tuple[ClassConfig, ...] = Field(min_length=1, description="What is to be found.")
    models: ModelsConfig = Field(ModelsConfig(), description="Detector, segmenter and scorer.")
    routing: RoutingConfig = Field(RoutingConfig(), description="Which labels are accepted.")
    review: ReviewConfig = Field(ReviewConfig(), description="How people review.")
    export: ExportConfig = Field(ExportConfig(), description="The data set that comes out.")
    run: RunConfig = Field(RunConfig(), description="How the work is cut and run.")

    @field_validator("classes")
    @classmethod
    def _names_differ(cls, value: tuple[ClassConfig, ...]) -> tuple[ClassConfig, ...]:
        counts = Counter(entry.name.casefold() for entry in value)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"class declared twice: {', '.join(twice)}; give all its prompts to one class")
        keys = Counter(name for entry in value for name in {entry.key, *entry.was})
        if twice := sorted(name for name, count in keys.items() if count > 1):
            raise ValueError(
                f"{twice[0]!r} is, or was, several classes; name it once, under was: of the class that takes its labels"
            )
        names: dict[str, str] = {}
        for entry in value:
            other = names.setdefault(_as_seen(entry.name), entry.name)
            if other != entry.name:
                raise ValueError(
                    f"classes {other!a} and {entry.name!a} look the same: they differ only by invisible "
                    "characters, spaces, or the way in which an accent is written; type one of them again"
                )
        return value


DRAWN: Final[dict[str, tuple[str, ...]]] = {
    "dog": ("puppy",), "cat": ("kitten",), "frog": ("toad",), "fish": (), "bird": ("sparrow",), "butterfly": ("moth",),
    "turtle": ("tortoise",), "car": ("automobile",), "bus": ("coach",), "airplane": ("plane", "aircraft"),
    "apple": (), "banana": (), "pizza": ("slice",), "hamburger": ("burger",), "cup": ("mug", "coffee"),
    "ball": ("football",), "balloon": (), "umbrella": ("parasol",), "book": ("novel",), "key": (), "clock": ("alarm",),
    "shirt": ("tshirt",), "shoe": ("sneaker",), "guitar": (), "tree": ("oak",), "mushroom": ("toadstool",),
    "house": ("home",), "heart": (),
}  # fmt: skip
"""What the bundled models know -> other names for it, as in their training (CORE in starter/scenes/vocabulary.py)."""

DRAWN_COLOURS: Final = ("red", "yellow", "green", "blue", "purple")


def unknown_classes(campaign: Campaign) -> dict[str, str]:
    """Name the classes that the campaign's bundled models do not know -> the thing that may be meant, or nothing.

    A class is known if one of its prompts is the name of a drawn thing, with or without a colour.
    """
    if not {"detector", "scorer"} & set(campaign.models.bundled):
        return {}
    words = {*DRAWN, *(other for others in DRAWN.values() for other in others)}

    def known(text: str) -> bool:
        return " ".join(word for word in text.casefold().split() if word not in DRAWN_COLOURS) in words

    unknown = [entry for entry in campaign.classes if not any(map(known, entry.texts))]
    return {entry.name: nearest(entry.texts[0].casefold(), words) for entry in unknown}


def nearest(word: str, words: Iterable[str], least: float = 0.6) -> str:
    """The one of some words that another may be a slip for, as alike as `least` (difflib's ratio); empty: none is."""
    return next(iter(difflib.get_close_matches(word, sorted(words), n=1, cutoff=least)), "")


def shown_names(classes: tuple[ClassConfig, ...]) -> dict[str, str]:
    """The names of renamed classes, by the name that their labels carry in the workspace; empty where none is."""
    return {entry.key: entry.name for entry in classes if entry.key != entry.name}


def merged_names(classes: tuple[ClassConfig, ...]) -> dict[str, str]:
    """Former classes that are part of another one now -> the name that its labels carry."""
    return {name: entry.key for entry in classes if len(entry.was) > 1 for name in entry.was if name != entry.key}


SIGNALS: Final = tuple(Thresholds.model_fields)
