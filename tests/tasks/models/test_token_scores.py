import torch

from tasks.models.groundingdino.captions import Caption
from tasks.models.token_scores import TokenScores


def test_each_phrase_has_its_best_token() -> None:
    # start, a, b, separator, c, separator, end; the first and last phrase are the same text
    caption = Caption((2, 7, 8, 1, 9, 1, 3), (0, 1, 4), ((1, 3), (4, 5), (1, 3)))
    logits = torch.full((1, 2, 10), 9.0)  # special tokens and what lies beyond must not count
    logits[0, 0, [1, 2, 4]] = torch.tensor([-1.0, 2.0, 0.0])
    logits[0, 1, [1, 2, 4]] = torch.tensor([0.5, torch.nan, -torch.inf])
    scores = TokenScores(caption, "cpu")(logits)
    assert scores.shape == (1, 2, 3)
    torch.testing.assert_close(scores[0, 0], torch.tensor([2.0, 0.0, 2.0]).sigmoid())
    assert scores[0, 1].isnan().tolist() == [True, False, True]
    assert scores[0, 1, 1] == 0
