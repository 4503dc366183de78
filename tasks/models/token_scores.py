"""Scores of phrases from logits of tokens."""

import torch
from torch import Tensor

from tasks.models.groundingdino.captions import Caption


class TokenScores:
    """Reduces the token logits of one caption to a score a phrase."""

    def __init__(self, caption: Caption, device: str) -> None:
        """Put the places of each phrase's tokens on the device."""
        self.caption = caption
        longest = max((stop - start for start, stop in caption.spans), default=1)
        # Shorter phrases name their last token again, which changes no maximum.
        places = [[min(start + step, stop - 1) for step in range(longest)] for start, stop in caption.spans]
        self._places = torch.tensor(places, dtype=torch.int64).view(len(places), longest).to(device)

    def __call__(self, logits: Tensor) -> Tensor:
        """Take the greatest sigmoid over each phrase's tokens; NaN stays NaN.

        Args:
            logits: (B, Q, T') of at least the caption's tokens.

        Returns:
            (B, Q, P) in [0, 1].
        """
        tokens = logits.index_select(2, self._places.flatten())
        return tokens.view(*logits.shape[:2], *self._places.shape).amax(3).sigmoid()
