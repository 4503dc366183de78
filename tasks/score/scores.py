"""Scores of the labels of one image, and their table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.tables import SCORES
from tasks.models.registry import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of the N labels of one image, float32 (N,) each; `_wide` ones are of the crop with more context."""

    similarity: Floats
    """Cosine with the label's class, [-1, 1]."""
    probability: Floats
    """Softmax probability of the label's class, [0, 1]."""
    margin: Floats
    """Probability less that of the best other text, [-1, 1]."""
    other: list[str | None]
    """Best other text on the tight crop: a class's name, a negative or a background text; None without any."""
    other_probability: Floats
    """Its probability; NaN without any."""
    similarity_wide: Floats
    probability_wide: Floats
    margin_wide: Floats

    @classmethod
    def none(cls) -> "Scores":
        """Scores of an image without labels."""
        empty = np.zeros(0, np.float32)
        return cls(empty, empty, empty, [], empty, empty, empty, empty)


def score_table(rows: Iterable[tuple[Sequence[str], Scores]]) -> pa.Table:
    """Make the SCORES table of some images.

    Args:
        rows: Label ids and scores of each image, in the order of the detections.

    Returns:
        One row a label; `clip_other_probability` is null where there is no other text.
    """
    ids: list[str] = []
    kept: list[Scores] = []
    for label_ids, scores in rows:
        ids.extend(label_ids)
        kept.append(scores)
    kept = kept or [Scores.none()]
    columns = {
        "label_id": ids,
        "clip_similarity": np.concatenate([scores.similarity for scores in kept]),
        "clip_probability": np.concatenate([scores.probability for scores in kept]),
        "clip_margin": np.concatenate([scores.margin for scores in kept]),
        "clip_other": [text for scores in kept for text in scores.other],
        "clip_other_probability": np.concatenate([scores.other_probability for scores in kept]),
        "clip_similarity_wide": np.concatenate([scores.similarity_wide for scores in kept]),
        "clip_probability_wide": np.concatenate([scores.probability_wide for scores in kept]),
        "clip_margin_wide": np.concatenate([scores.margin_wide for scores in kept]),
    }
    return pa.table(
        [pa.array(columns[field.name], field.type, from_pandas=True) for field in SCORES],
        schema=SCORES,
    )
