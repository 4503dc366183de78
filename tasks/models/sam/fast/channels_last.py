"""The image encoder's ends, patches and neck, in the order of its middle: channels last."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.models.engine.linear import linear
from tasks.models.sam.fast.pooled_decoder import norm_last

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.image_encoder import PatchEmbed


def install_ends(sam: "Sam") -> None:
    """Replace the image encoder's patch embedding and neck by ones that hold the same parameters.

    The package's encoder hands its blocks a transposed view, which every layer norm and projection copies anew.
    """
    encoder: Any = sam.image_encoder
    encoder.patch_embed = Patches(encoder.patch_embed)
    encoder.neck = Neck(encoder.neck)


class Patches(nn.Module):
    """PatchEmbed of the package: a convolution whose patches do not overlap is one matrix product."""

    def __init__(self, patches: "PatchEmbed") -> None:
        """Take the package's module."""
        super().__init__()
        self.proj = patches.proj

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, S / P, S / P, C), contiguous."""
        side = self.proj.kernel_size[0]
        batch, channels, height, width = images.shape
        rows, columns = height // side, width // side
        cut = images.view(batch, channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        tokens = cut.reshape(batch, rows, columns, -1)
        return linear(tokens, self.proj.weight.flatten(1), self.proj.bias)


class Neck(nn.Module):
    """The package's neck: 1 x 1 and 3 x 3 convolution, each normalised over channels."""

    def __init__(self, neck: nn.Sequential) -> None:
        """Take the package's sequence."""
        super().__init__()
        layers = cast("tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d]", neck)
        self.first, self.norm1, self.second, self.norm2 = layers
        self.second.weight.data = self.second.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C, h, w), a view of channels-last memory, to (B, O, h, w), the same."""
        places = linear(tokens.permute(0, 2, 3, 1), self.first.weight.flatten(1), self.first.bias)
        places = norm_last(places, self.norm1).permute(0, 3, 1, 2)
        convolved = functional.conv2d(places, self.second.weight, self.second.bias, padding=self.second.padding)
        return norm_last(convolved.permute(0, 2, 3, 1), self.norm2).permute(0, 3, 1, 2)
