"""The image towers of open_clip, made fast on the package's own weights."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vouch_labels.tasks.models.compile import install_onednn, linear
from vouch_labels.tasks.models.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from open_clip.modified_resnet import AttentionPool2d


def install(model: nn.Module, runtime: Runtime) -> None:
    """Replace parts of an open_clip CLIP in evaluation mode, in place, by faster ones, equal but for rounding."""
    from open_clip.modified_resnet import AttentionPool2d
    from open_clip.transformer import ResidualAttentionBlock

    visual: Any = model.visual
    if runtime.engine.has("folded_scorer"):
        for owner, convolution, norm in list(_normed(visual)):
            # The tower's own forward stays: a norm that does nothing, behind a convolution that does the work of both.
            fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm)).requires_grad_(False)
            setattr(owner, convolution, PointConvolution(fused) if fused.kernel_size == (1, 1) else fused)
            setattr(owner, norm, nn.Identity())
        pool = getattr(visual, "attnpool", None)
        if type(pool) is AttentionPool2d:
            visual.attnpool = PooledToken(pool)
        for block in model.modules():
            # Blocks that attend to another sequence have a norm for it.
            if isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv"):
                block.attn = SelfAttention(block.attn)
        install_onednn(model)
        if runtime.precision == "bf16":
            # Autocast would make them again in every call.
            for module in visual.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | PointConvolution | SelfAttention):
                    module.to(torch.bfloat16)
    if runtime.engine.has("channels_last"):
        visual.to(memory_format=torch.channels_last)


class PooledToken(nn.Module):
    """AttentionPool2d of open_clip/modified_resnet.py, for the one token of which its answer is made.

    The package projects all tokens to queries, keys and values, and drops all answers but the first. Here the one query
    is taken through the keys' projection, and the values' projection is applied to weighted means of tokens; what a
    bias of the keys adds is the same for all tokens and falls out of the softmax.
    """

    def __init__(self, pool: "AttentionPool2d") -> None:
        """Take the parts of the package's module."""
        super().__init__()
        self.positional_embedding = pool.positional_embedding
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.num_heads: int = pool.num_heads

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (N, D)."""
        heads = self.num_heads
        places = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1) + self.positional_embedding
        count, _, width = tokens.shape
        query = linear(tokens[:, 0], self.q_proj.weight, self.q_proj.bias).view(count, heads, 1, -1)
        keys = self.k_proj.weight.view(heads, -1, width)
        # (heads, N, C), one product a head.
        folded = torch.matmul(query[:, :, 0].transpose(0, 1), keys) * query.shape[-1] ** -0.5
        logits = torch.bmm(folded.transpose(0, 1), tokens.transpose(1, 2))
        means = torch.bmm(torch.softmax(logits, dim=-1), tokens)
        values = self.v_proj.weight.view(heads, -1, width).transpose(1, 2)
        found = torch.matmul(means.transpose(0, 1), values).transpose(0, 1).flatten(1) + self.v_proj.bias
        return linear(found, self.c_proj.weight, self.c_proj.bias)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention as open_clip's transformers call it: of tokens to each other, without weights asked for."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take the parameters of one with batches first."""
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.num_heads = attention.num_heads

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """(N, L, C) to (N, L, C); the mask is added to the logits, (L, L) or (N * heads, L, L)."""
        if key is not query or value is not query or need_weights:
            raise ValueError("only attention of tokens to each other, without weights")
        count, length, width = query.shape
        joined = linear(query, self.in_proj_weight, self.in_proj_bias)
        parts = joined.view(count, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.view(count, self.num_heads, length, length)
        found = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask)
        mixed = found.transpose(1, 2).reshape(count, length, width)
        return linear(mixed, self.out_proj.weight, self.out_proj.bias), None


class PointConvolution(nn.Module):
    """A convolution of one pixel, as the product of matrices that it is where channels come last."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take the weights of a convolution of stride 1."""
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1).contiguous(), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, maps: Tensor) -> Tensor:
        """(N, I, h, w) to (N, O, h, w), a view of channels-last memory."""
        return linear(maps.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


def _normed(visual: nn.Module) -> "Iterator[tuple[nn.Module, str, str]]":
    """The convolutions of open_clip's ResNets that a batch norm follows: owner, name of both."""
    from open_clip.modified_resnet import Bottleneck, ModifiedResNet

    for module in visual.modules():
        if isinstance(module, Bottleneck | ModifiedResNet):
            yield from ((module, f"conv{number}", f"bn{number}") for number in (1, 2, 3))
        if isinstance(module, Bottleneck) and module.downsample is not None:
            yield module.downsample, "0", "1"
