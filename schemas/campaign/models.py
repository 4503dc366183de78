"""Which models look at the images, from which files, on which device."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from schemas.base import Strict
from schemas.campaign.switches import SWITCHES, known_switch

SHA256 = r"^[0-9a-f]{64}$"
BatchSize = Literal["auto"] | Annotated[int, Field(ge=1, le=8192)]
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

    backend: str = Field("groundingdino", description="groundingdino, transformers, or fake.")
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
