"""Builds SAM from the name of an official architecture or from a description of its parts."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vouch_labels.schemas.errors import UserError

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

OFFICIAL: Final = ("vit_b", "vit_l", "vit_h")
_WIDTHS: Final = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_PARTS: Final = {"image_encoder", "prompt_encoder", "mask_decoder"}
_ALLOWED: Final = _PARTS | {"pixel_mean", "pixel_std"}


def build_sam(architecture: str | Path) -> "Sam":
    """Build the package's SAM with its initial weights, on the CPU, in eval mode.

    Args:
        architecture: vit_b, vit_l or vit_h, or the path of a JSON file with the keyword arguments of the package's
            classes: {"image_encoder": ImageEncoderViT, "prompt_encoder": PromptEncoder, "mask_decoder": MaskDecoder
            with "transformer": TwoWayTransformer, "pixel_mean": 3 numbers, "pixel_std": 3 numbers}; the last two
            may be left out.

    Raises:
        UserError: No such architecture, or the file does not describe one.
    """
    description = read_description(architecture)
    if architecture in OFFICIAL:
        from segment_anything import sam_model_registry

        sam: Sam = sam_model_registry[architecture]()
        return sam
    return _from_parts(architecture, description)


def architecture_of(state: "Mapping[str, torch.Tensor]") -> str:
    """Tell the official architecture of a checkpoint from the width of its image encoder.

    Raises:
        UserError: It is none of the official ones.
    """
    positions = state.get("image_encoder.pos_embed")
    width = None if positions is None else positions.shape[-1]
    if width not in _WIDTHS:
        raise UserError(
            f"models.segmenter.architecture: the checkpoint is of no known architecture; "
            f"set it to one of {', '.join(OFFICIAL)} or to a .json file"
        )
    return _WIDTHS[width]


def read_description(architecture: str | Path) -> dict[str, Any]:
    """The content of an architecture's JSON file; for an official name just that name.

    Raises:
        UserError: No such architecture, or the file does not describe one.
    """
    if architecture in OFFICIAL:
        return {"name": str(architecture)}
    path = Path(architecture)
    if path.suffix != ".json" or not path.is_file():
        names = ", ".join(OFFICIAL)
        raise UserError(f"models.segmenter.architecture: {path} is neither one of {names} nor a .json file")
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"models.segmenter.architecture: cannot read {path} as JSON ({error})") from error
    if not isinstance(parts, dict) or not parts.keys() >= _PARTS or not parts.keys() <= _ALLOWED:
        raise UserError(
            f"models.segmenter.architecture: {path} must hold {', '.join(sorted(_PARTS))} "
            "and may hold pixel_mean, pixel_std"
        )
    return parts


def _from_parts(name: str | Path, parts: Mapping[str, Any]) -> "Sam":
    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    decoder = dict(parts["mask_decoder"])
    normalisation = {key: parts[key] for key in ("pixel_mean", "pixel_std") if key in parts}
    try:
        sam = Sam(
            # The package's builders use this epsilon; LayerNorm's own default is another one.
            image_encoder=ImageEncoderViT(norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), **parts["image_encoder"]),
            prompt_encoder=PromptEncoder(**parts["prompt_encoder"]),
            mask_decoder=MaskDecoder(transformer=TwoWayTransformer(**decoder.pop("transformer")), **decoder),
            **normalisation,
        )
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise UserError(f"models.segmenter.architecture: {name} describes no SAM ({error})") from error
    return sam.eval()
