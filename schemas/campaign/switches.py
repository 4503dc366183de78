"""The speed-ups of the models by name, each of which can be switched off alone."""

import difflib
from typing import Final

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
    """Give the name back.

    Raises:
        ValueError: There is no such switch; the nearest is named.
    """
    if name in SWITCHES:
        return name
    near = difflib.get_close_matches(name, SWITCHES, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"use some of {', '.join(SWITCHES)}"
    raise ValueError(f"{name!r} is no switch; {hint}")
