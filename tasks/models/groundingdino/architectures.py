"""Architectures of GroundingDINO: the two published ones by name, others as JSON files."""

import json
import runpy
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.campaign import Strict
from schemas.errors import CheckpointError

PUBLISHED: Final = {"swin_t": "GroundingDINO_SwinT_OGC.py", "swin_b": "GroundingDINO_SwinB_cfg.py"}
"""Name -> config file in the package."""


class Swin(Strict):
    """Sizes of the image backbone."""

    embed_dim: int = Field(ge=1, description="Channels of the first stage; doubled by each further one.")
    depths: tuple[int, int, int, int] = Field(description="Blocks a stage.")
    num_heads: tuple[int, int, int, int] = Field(description="Attention heads a stage.")
    window_size: int = Field(ge=1, description="Side of an attention window, in patches.")


class Resize(Strict):
    """Sides that images are resized to, keeping their aspect."""

    short_side: int = Field(800, ge=32, description="Pixels of the shorter side.")
    long_side: int = Field(1333, ge=32, description="Most pixels of the longer side; it wins.")


class Architecture(BaseModel):
    """All that building and feeding a GroundingDINO needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groundingdino: dict[str, Any] = Field({}, description="Fields of the package's config; Swin-T's where absent.")
    swin: Swin | None = Field(None, description="Backbone sizes; None: the package's own for `backbone`.")
    bert: dict[str, Any] = Field({}, description="BertConfig fields; bert-base-uncased's where absent.")
    resize: Resize = Field(Resize(), description="Input size.")


def read_architecture(chosen: str | Path | None) -> Architecture:
    """The architecture of a name, or of a JSON file with the fields of `Architecture`.

    Raises:
        CheckpointError: None is given, the name is unknown, or the file cannot be read or does not fit.
    """
    names = ", ".join(PUBLISHED)
    if chosen is None:
        raise CheckpointError(
            f"models.detector.architecture: the checkpoint does not say its own; set {names} or a JSON file"
        )
    if isinstance(chosen, str):
        if chosen not in PUBLISHED:
            raise CheckpointError(f"models.detector.architecture: {chosen!r} is unknown; use {names} or a JSON file")
        return Architecture(groundingdino=_package_config(PUBLISHED[chosen]))
    try:
        architecture = Architecture.model_validate(json.loads(chosen.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"cannot read {chosen}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(f"{chosen}: {place}: {first['msg']}; see a bundled model's JSON file") from error
    except ValueError as error:
        raise CheckpointError(f"{chosen} is no JSON: {error}") from error
    base = _package_config(PUBLISHED["swin_t"])
    unknown = sorted(set(architecture.groundingdino) - set(base))
    if unknown:
        raise CheckpointError(f"{chosen}: groundingdino.{unknown[0]} is no field of the package's config; remove it")
    return architecture.model_copy(update={"groundingdino": {**base, **architecture.groundingdino}})


def _package_config(name: str) -> dict[str, Any]:
    """Fields of a config file of the installed package (a Python file of plain assignments)."""
    import groundingdino

    path = Path(groundingdino.__file__).parent / "config" / name
    return {field: value for field, value in runpy.run_path(str(path)).items() if not field.startswith("_")}
