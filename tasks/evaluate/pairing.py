"""Pairs the images and classes of a run with those of ground truth."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

_SEVERAL: Final = -1


class PairedImages(NamedTuple):
    """Which image of the truth each key of the run is."""

    rule: Literal["file_name", "path_end", "both"]
    """file_name: whole keys were equal; path_end: the last parts of the paths were; both: some so, some so."""
    places: dict[str, int]
    """Key -> place in the truth's list of images."""
    ambiguous: list[str]
    """Keys that fit several file names, or share one with other keys, so that they were not paired."""


class PairedClasses(NamedTuple):
    """Which classes are the same."""

    common: tuple[str, ...]
    """Names as the run has them, in its order."""
    run_only: tuple[str, ...]
    truth_only: tuple[str, ...]
    place_of_category: dict[int | str, int]
    """Category id of the truth -> place in `common`."""
    former: dict[str, str]
    """Category of the truth that has a former name of a class -> its name now."""

    def by_place(self, categories: Sequence[int | str]) -> NDArray[np.int64]:
        """Places in `common` of categories given by their ids, -1 for those that are not compared."""
        return np.array([self.place_of_category.get(number, -1) for number in categories], np.int64)


def pair_images(keys: Iterable[str], file_names: Sequence[str]) -> PairedImages:
    """Pair keys with file names.

    A key and a file name are the same image when they are equal. Of those that are left, paths are compared from their
    ends, since data sets often name files without their folders, or below another one: then one must end with all the
    parts of the other, and it must be the only one that does so on either side.
    """
    whole = {name: place for place, name in enumerate(file_names)}
    equal: dict[str, int] = {}
    others: list[str] = []
    for key in keys:
        if key in whole:
            equal[key] = whole[key]
        else:
            others.append(key)
    ends, ambiguous = _pair_ends(others, {name: place for name, place in whole.items() if name not in equal})
    rule: Literal["file_name", "path_end", "both"] = "both" if equal and ends else "path_end" if ends else "file_name"
    return PairedImages(rule, equal | ends, ambiguous)


def _pair_ends(keys: Sequence[str], whole: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    # Of a truth of millions of images only names that can fit are looked at.
    files = {key.rpartition("/")[2] for key in keys}
    whole = {name: place for name, place in whole.items() if name.rpartition("/")[2] in files}
    ends: dict[str, int] = {}
    for name, place in whole.items():
        for end in _ends(name):
            ends[end] = _SEVERAL if end in ends else place
    paired: dict[str, int] = {}
    ambiguous: list[str] = []
    for key in keys:
        fits = [ends[key]] if key in ends else []
        fits += [whole[end] for end in _ends(key) if end in whole]
        if len(fits) == 1 and fits[0] != _SEVERAL:
            paired[key] = fits[0]
        elif fits:
            ambiguous.append(key)
    claims = Counter(paired.values())
    ambiguous += [key for key, place in paired.items() if claims[place] > 1]
    return {key: place for key, place in paired.items() if claims[place] == 1}, ambiguous


def pair_classes(
    class_names: Sequence[str], categories: Mapping[int | str, str], former: Mapping[str, str] = MappingProxyType({})
) -> PairedClasses:
    """Pair the classes of a run with categories of the truth by name; letter case and spaces around do not matter.

    Several categories of one name are one class. Where two classes of the run differ in nothing but case, a category
    goes to the one that it equals, or to the first. Names that no class has now may be former ones: `former` has the
    present name of each.
    """
    folded: dict[str, str] = {}
    for name in class_names:
        folded.setdefault(_folded(name), name)
    for name, present in former.items():
        folded.setdefault(_folded(name), present)
    own = set(class_names)
    class_of = {number: name if name in own else folded.get(_folded(name), "") for number, name in categories.items()}
    met = set(class_of.values())
    common = tuple(name for name in class_names if name in met)
    return PairedClasses(
        common=common,
        run_only=tuple(name for name in class_names if name not in met),
        truth_only=tuple(dict.fromkeys(categories[number] for number, name in class_of.items() if not name)),
        place_of_category={number: common.index(name) for number, name in class_of.items() if name},
        former={
            categories[number]: name
            for number, name in class_of.items()
            if name and _folded(categories[number]) != _folded(name)
        },
    )


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _ends(path: str) -> Iterator[str]:
    """The path without its first folder, without its first two ..."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path
