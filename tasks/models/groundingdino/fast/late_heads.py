"""Which cells become queries, and the heads that say so and more (switch late_heads)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.layout import Layout
from tasks.models.groundingdino.fast.products import product
from tasks.models.groundingdino.fast.rows import by_rows

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.transformer import Transformer


class Selection:
    """The two-stage selection: cells whose tokens score best propose the boxes that the decoder refines."""

    def __init__(self, transformer: "Transformer", engine: Engine) -> None:
        """Take the package's Transformer."""
        self._transformer, self._late = transformer, engine.has("late_heads")

    def __call__(self, memory: Tensor, text: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Select queries.

        Args:
            memory: (B, N, D) from the encoder.
            text: (B, T, D) from the encoder.
            layout: Of the maps.

        Returns:
            Logits of their first boxes (B, Q, 4) and their states (B, Q, D).
        """
        outputs, best = (self._select if self._late else self._select_all)(memory, text, layout)
        if self._transformer.embed_init_tgt:
            return outputs, self._transformer.tgt_embed.weight.expand(len(memory), -1, -1)
        return outputs, self._propose(_rows(memory, best), _rows(layout.rejected, best))

    def best(self, scores: Tensor) -> Tensor:
        """Indices (B, Q) of the greatest scores (B, N), greatest first."""
        return scores.topk(self._transformer.num_queries, 1).indices

    def _select(self, memory: Tensor, text: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        def score(cells: Tensor, rejected: Tensor) -> Tensor:
            return token_logits(self._propose(cells, rejected), text).amax(2)

        best = self.best(by_rows(score, memory, layout.rejected))
        proposed = self._propose(_rows(memory, best), _rows(layout.rejected, best))
        return self._transformer.enc_out_bbox_embed(proposed) + _rows(layout.proposals, best), best

    def _select_all(self, memory: Tensor, text: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        proposed = self._propose(memory, layout.rejected)
        logits = self._transformer.enc_out_class_embed(proposed, as_texts(text)).amax(2)
        boxes = self._transformer.enc_out_bbox_embed(proposed) + layout.proposals
        best = self.best(logits)
        return _rows(boxes, best), best

    def _propose(self, cells: Tensor, rejected: Tensor) -> Tensor:
        proposed: Tensor = self._transformer.enc_output(cells.masked_fill(rejected, 0))
        normed: Tensor = self._transformer.enc_output_norm(proposed)
        return normed


def token_logits(states: Tensor, text: Tensor) -> Tensor:
    """(B, Q, D) and (B, T, D) to (B, Q, T), in float32 whatever the rest computes in."""
    with torch.autocast(states.device.type, enabled=False):
        return product(states.float(), text.float().transpose(1, 2))


def as_texts(text: Tensor) -> dict[str, Tensor]:
    """The dictionary that the package's class heads take, for texts (B, T, D) without padding."""
    return {"encoded_text": text, "text_token_mask": torch.ones_like(text[..., 0], dtype=torch.bool)}


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    """Rows (B, Q, D) of (B or 1, N, D) at indices (B, Q)."""
    index = chosen[..., None].expand(-1, -1, values.shape[2])
    return values.expand(len(chosen), -1, -1).gather(1, index)
