"""Made-up batches of labels whose truth is known: images, classes, signals, and why a label is wrong.

An image j has a difficulty u_j ~ Normal(0, s^2); a label of class c in it is correct with probability
sigmoid(b + o_c + u_j), so labels of one image err together (on the logit scale the intra-image correlation is
s^2 / (s^2 + pi^2/3)). A wrong label has one of four reasons, each with its own mean of the six signals; all kinds share
one covariance. Units of the signals are standard deviations.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit, logsumexp

from tasks.statistics.bounds import Bools, Floats, Ints

SIGNALS: Final = ("detector_score", "detector_margin", "clip_probability", "sam_iou", "mask_box_iou", "crowding")
KINDS: Final = ("background", "absent class", "part", "duplicate")
SHIFTS: Final = np.array(
    [
        [-1.1, -0.8, -1.5, -0.7, -0.6, -0.1],
        [-0.8, -1.0, -1.3, -0.1, -0.1, 0.0],
        [-0.7, -0.2, -0.7, -0.4, -1.5, 0.4],
        [-0.6, -0.3, -0.2, -0.2, -0.7, 1.9],
    ]
)
"""(kinds, signals) means of wrong labels; correct ones have mean 0."""
SHARED: Final = 0.15
"""Covariance of any two signals of one label."""
IMAGE_SHIFT: Final = 0.25
"""How much an image's difficulty moves the signals of its labels, per unit of it."""
CLASS_SPREAD: Final = 0.5


@dataclass(frozen=True)
class World:
    """What is different in a world."""

    name: str
    images: int = 8_000
    labels_an_image: float = 5.0
    spread: float = 0.0
    """Standard deviation s of the images' difficulty."""
    base: float = 1.1
    """Logit b of a correct label in an average image."""
    kinds: tuple[float, float, float, float] = (0.55, 0.2, 0.15, 0.1)
    """Shares of the reasons among wrong labels."""
    absent_images: float = 0.0
    """Share of images in which a class is looked for that is not there: all their labels are wrong."""
    classes: int = 12
    informative: bool = True
    """False: signals that say nothing, so every threshold has the precision of the whole batch."""
    tired: bool = False
    """Reviewers miss more wrong labels the rarer these are in their queue, and call 1% of correct ones wrong."""
    grouped: bool = False
    """Frequent classes are promised on their own, the others together."""
    only: float | None = None
    """The one precision that this world is about; None: all."""


@dataclass(frozen=True)
class Batch:
    """A drawn batch of N labels."""

    signals: Floats
    """(N, 6)."""
    classes: Ints
    images: Ints
    """(N,) index of the image."""
    correct: Bools
    ideal: Floats
    """(N,) probability of being correct given signals and class: the best score there is without looking."""


def draw(world: World, rng: np.random.Generator) -> Batch:
    """Draw a batch."""
    counts = 1 + rng.poisson(world.labels_an_image - 1, world.images)
    images = np.repeat(np.arange(world.images), counts)
    count = len(images)
    weights = 1 / np.arange(1, world.classes + 1)
    classes = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(count)).clip(max=world.classes - 1)
    offsets = rng.normal(0, CLASS_SPREAD * world.informative, world.classes)
    offsets -= offsets @ (weights / weights.sum())
    difficulty = world.spread * rng.standard_normal(world.images)
    # The mean over images stays where it is for any spread, roughly (logistic-normal, MacKay 1992).
    slope = np.sqrt(1 + np.pi * world.spread**2 / 8)
    correct = rng.random(count) < expit(world.base * slope + offsets[classes] + difficulty[images])
    absent = rng.random(world.images) < world.absent_images
    correct &= ~absent[images]
    kind = np.searchsorted(np.cumsum(world.kinds), rng.random(count)).clip(max=len(KINDS) - 1)
    kind[absent[images]] = 1
    signals = rng.standard_normal((count, len(SIGNALS))) * np.sqrt(1 - SHARED)
    signals += np.sqrt(SHARED) * rng.standard_normal((count, 1))
    if not world.informative:
        return Batch(signals, classes, images, correct, rng.random(count))
    signals[~correct] += SHIFTS[kind[~correct]]
    signals += IMAGE_SHIFT * difficulty[images][:, None]
    return Batch(signals, classes, images, correct, _ideal(signals, classes, correct, kind, world))


def _ideal(signals: Floats, classes: Ints, correct: Bools, kind: Ints, world: World) -> Floats:
    """Posterior of "correct", from the true densities and the shares that this batch has."""
    size = len(SIGNALS)
    covariance = (1 - SHARED) * np.eye(size) + SHARED + (IMAGE_SHIFT * world.spread) ** 2
    whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T
    points, means = signals @ whiten, SHIFTS @ whiten
    shares = np.bincount(kind[~correct], minlength=len(KINDS)) / max(1, int((~correct).sum()))
    logs = points @ means.T - (means**2).sum(axis=1) / 2 + np.log(np.maximum(shares, 1e-12))
    rate = (np.bincount(classes, correct, world.classes) + 0.5) / (np.bincount(classes, minlength=world.classes) + 1)
    return np.asarray(expit(np.log(rate / (1 - rate))[classes] - logsumexp(logs, axis=1)), np.float64)
