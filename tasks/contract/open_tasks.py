"""Which tasks of review plans still wait for an answer."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.certify.bounds import Bools
from tasks.reviews.resolve import NO_ANSWER, Answers, ImageAnswers


def open_tasks(tasks: pa.Table, answers: Answers, images: ImageAnswers) -> pa.Table:
    """Keep the tasks without an answer, in their order.

    A label is answered by any verdict on it; an image by `checked`, of its class or of every class.

    Args:
        tasks: Rows of schemas.reviews.TASKS.
        answers: What was answered about labels.
        images: What was answered about images.
    """
    about_label = np.asarray(pc.is_valid(tasks["label_id"]).to_numpy(), np.bool_)
    waiting = answers.wrong_of(tasks["label_id"]) == NO_ANSWER
    searched = set(zip(images.checked["key"].to_pylist(), images.checked["class_name"].to_pylist(), strict=True))
    pairs = zip(tasks["key"].to_pylist(), tasks["class_name"].to_pylist(), strict=True)
    checked = np.array([(key, name) in searched or (key, None) in searched for key, name in pairs], np.bool_)
    keep: Bools = np.where(about_label, waiting, ~checked)
    return tasks.filter(pa.array(keep))
