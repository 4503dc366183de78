"""The published checkpoints that can be asked for by name."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["detector", "segmenter", "scorer"]


@dataclass(frozen=True, slots=True)
class Official:
    """One published file."""

    kind: Kind
    architecture: str
    """Name of a built-in architecture of the backend that reads it."""
    repository: str
    """owner/name on the model hub."""
    revision: str
    """Commit, or branch where the SHA-256 alone pins the file."""
    path: str
    """File inside the repository; its last part is the file's published name."""
    sha256: str
    size: int
    """Bytes."""


OFFICIAL: Final[dict[str, Official]] = {
    "groundingdino_swint_ogc": Official(
        kind="detector",
        architecture="swin_t",
        repository="ShilongLiu/GroundingDINO",
        revision="a94c9b567a2a374598f05c584e96798a170c56fb",
        path="groundingdino_swint_ogc.pth",
        sha256="3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
        size=693_997_677,
    ),
    "groundingdino_swinb_cogcoor": Official(
        kind="detector",
        architecture="swin_b",
        repository="ShilongLiu/GroundingDINO",
        revision="a94c9b567a2a374598f05c584e96798a170c56fb",
        path="groundingdino_swinb_cogcoor.pth",
        sha256="46270f7a822e6906b655b729c90613e48929d0f2bb8b9b76fd10a856f3ac6ab7",
        size=938_057_991,
    ),
    "sam_vit_b": Official(
        kind="segmenter",
        architecture="vit_b",
        repository="ybelkada/segment-anything",
        revision="main",
        path="checkpoints/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
    ),
    "sam_vit_l": Official(
        kind="segmenter",
        architecture="vit_l",
        repository="ybelkada/segment-anything",
        revision="main",
        path="checkpoints/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size=1_249_524_607,
    ),
    "sam_vit_h": Official(
        kind="segmenter",
        architecture="vit_h",
        repository="ybelkada/segment-anything",
        revision="main",
        path="checkpoints/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
    ),
}
"""Name -> file, as `models.<kind>.checkpoint` and `vouch models list` know it."""
