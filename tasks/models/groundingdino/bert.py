"""The text encoder as GroundingDINO calls it, on the BERT of today's transformers."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import BertModel


class PhraseBert(nn.Module):
    """Runs a BertModel under a full attention mask, so that phrases of one caption do not see each other.

    The package's own wrapper calls methods that transformers 5 no longer has. This one owns the same three
    submodules under the same names, hence reads the same checkpoints.
    """

    def __init__(self, bert_model: "BertModel") -> None:
        """Take over the model's embeddings, encoder and pooler."""
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler  # part of the checkpoints; its output is not used

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        **_unused: object,  # whatever else a tokenizer returns
    ) -> dict[str, Tensor]:
        """Encode tokens.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T, T) boolean, True where row may look at column; (B, T) is widened to all rows.
            token_type_ids: (B, T) int64.
            position_ids: (B, T) int64, counted from 0 within each phrase.

        Returns:
            {"last_hidden_state": (B, T, D)}.
        """
        embedded = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
        allowed = attention_mask[:, None, :, :] if attention_mask.dim() == 3 else attention_mask[:, None, None, :]
        least = torch.finfo(embedded.dtype).min
        additive = torch.zeros_like(allowed, dtype=embedded.dtype).masked_fill(~allowed.bool(), least)
        hidden = self.encoder(embedded, attention_mask=additive)
        return {"last_hidden_state": hidden[0]}
