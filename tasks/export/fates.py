"""Says how a label ends in a data set, and of which classes an image may show more than is annotated."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from tasks.export.records import ExportImage, ExportLabel

Fate = Literal["accepted", "kept", "corrected", "added", "rejected", "undecided", "dropped", "unusable"]
"""A field of ClassCounts."""
Undecided = Literal["ignore", "drop", "include"]


def fate_of(label: ExportLabel, undecided: Undecided) -> tuple[Fate, bool]:
    """Say how a label ends, its box aside, and whether it is a crowd region.

    What people said goes before the policy's decision. An object of which nobody said what it is or where it ends is
    never a plain label, even where undecided ones are: it is known to be wrong as it stands.

    Args:
        label: The label.
        undecided: What becomes of labels that wait for review.
    """
    if label.reviewed in ("kept", "corrected", "added", "rejected"):
        return label.reviewed, False
    if label.decision == "accept" and not label.reviewed:
        return "accepted", False
    if undecided == "drop":
        return "dropped", False
    return "undecided", undecided == "ignore" or label.reviewed == "unclear"


def not_exhaustive(image: ExportImage, fates: Sequence[Fate], categories: Mapping[str, int]) -> tuple[int, ...]:
    """Name the categories of which an image may show objects without a plain annotation, as ascending ids.

    Those that nobody searched the image for; and of those searched for, the ones that a label in doubt may be of: its
    own class, every class if people said that its own is wrong and not which one is right.

    Args:
        image: The image.
        fates: How its labels ended.
        categories: Category -> id.
    """
    if not image.checked:
        return _ids(tuple(categories.values()), frozenset())
    known = set(image.checked)
    for label, fate in zip(image.labels, fates, strict=True):
        if fate in ("undecided", "dropped", "unusable"):
            known -= known if label.verdict == "wrong_class" else {label.class_name}
    return _ids(tuple(categories.values()), frozenset(categories[name] for name in known if name in categories))


@lru_cache(maxsize=64)
def _ids(all_ids: tuple[int, ...], known: frozenset[int]) -> tuple[int, ...]:
    return tuple(sorted(number for number in all_ids if number not in known))
