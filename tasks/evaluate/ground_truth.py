"""Reads COCO ground truth as arrays and masks, and pairs its images and classes with those of a run."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.boxes_masks import is_rle
from vouch_labels.tasks.matching import ImageObjects, Rle

_LISTS: Final = ("images", "annotations", "categories")

_SEVERAL: Final = -1


class TruthImage(NamedTuple):
    """One image of the file."""

    id: int | str
    file_name: str
    width: int | None
    """Pixels; None when the file does not say."""
    height: int | None


class TruthObject(NamedTuple):
    """One annotation."""

    id: object
    image_id: int | str
    category_id: int | str
    xywh: tuple[float, float, float, float]
    crowd: bool
    segmentation: "list[NDArray[np.float64]] | RunLengths | None"
    """Polygons, flat x, y, x, y ... each, or run lengths; None without a mask."""


class RunLengths(NamedTuple):
    """A mask as run lengths."""

    size: tuple[int, int]
    """Height and width."""
    counts: NDArray[np.int64] | bytes
    """Plain, or compressed."""


class Truth(NamedTuple):
    """A ground-truth file."""

    path: Path
    images: list[TruthImage]
    """In the order of the file."""
    categories: dict[int | str, str]
    """Category id -> name."""
    objects: dict[int | str, list[TruthObject]]
    """Image id -> its annotations; annotations of unknown images or categories are left out, as pycocotools does."""

    def counts(self) -> Counter[str]:
        """Annotations of each category by name, crowd regions included."""
        return Counter(self.categories[item.category_id] for items in self.objects.values() for item in items)


class _MalformedError(Exception):
    """An element that is not what COCO has there; its text ends the user's line."""


def read_truth(path: Path) -> Truth:
    """Read a COCO instances file.

    Annotations are made small while the file is parsed, so that memory is that of the text and of what is kept.

    Raises:
        UserError: There is no such file, or it holds no COCO instances.
    """
    document = _parsed(path)
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in _LISTS):
        raise UserError(
            f"{path}: is no COCO instances file; it must be a JSON object with the lists {', '.join(_LISTS)}"
        )
    images = list(_checked(path, document, "images", TruthImage, "an id and a file_name"))
    categories = {entry["id"]: entry["name"] for entry in _categories(path, document["categories"])}
    objects: dict[int | str, list[TruthObject]] = defaultdict(list)
    known = {image.id for image in images}
    for item in _checked(path, document, "annotations", TruthObject, "an image_id, a category_id and a bbox"):
        if item.image_id in known and item.category_id in categories:
            objects[item.image_id].append(item)
    _check_once(path, images)
    return Truth(path, images, categories, dict(objects))


def _parsed(path: Path) -> Any:  # noqa: ANN401 - whatever stands in the file
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=_slim)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; --truth takes a COCO annotation file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except _MalformedError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}: {error.msg})" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}: is no JSON{where}; --truth takes a COCO annotation file") from None


def _slim(value: dict[str, Any]) -> Any:  # noqa: ANN401 - an object of the file, or what is kept of it
    """What is kept of a JSON object: called by the parser for each, inner ones first."""
    if "bbox" in value and "image_id" in value and "category_id" in value:
        return _object(value)
    if "file_name" in value and "id" in value and "image_id" not in value:
        return _image(value)
    return value


def _image(value: dict[str, Any]) -> TruthImage:
    name = value["file_name"]
    if not _is_id(value["id"]) or not isinstance(name, str):
        raise _MalformedError(f"image {value['id']!r}: its id must be a number or text, its file_name text")
    sides = [value.get(side) for side in ("width", "height")]
    width, height = (side if isinstance(side, int) and side > 0 else None for side in sides)
    return TruthImage(value["id"], name.replace("\\", "/").removeprefix("./"), width, height)


def _object(value: dict[str, Any]) -> TruthObject:
    name, box = value.get("id"), value["bbox"]
    if not _is_id(value["image_id"]) or not _is_id(value["category_id"]):
        raise _MalformedError(f"annotation {name!r}: image_id and category_id must be numbers or texts")
    if not (isinstance(box, list) and len(box) == 4 and _numbers(box) and min(box[2:]) >= 0):
        raise _MalformedError(f"annotation {name!r}: bbox must be left, top, width and height, not {box!r}")
    x, y, width, height = map(float, box)
    mask = _segmentation(value.get("segmentation"))
    return TruthObject(
        name, value["image_id"], value["category_id"], (x, y, width, height), bool(value.get("iscrowd")), mask
    )


def _segmentation(value: Any) -> list[NDArray[np.float64]] | RunLengths | None:  # noqa: ANN401 - not checked yet
    """Polygons or run lengths; None for what is neither."""
    if isinstance(value, list):
        polygons = [part for part in value if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0]
        if not polygons or len(polygons) < len(value) or not all(map(_numbers, polygons)):
            return None
        return [np.array(part, np.float64) for part in polygons]
    if not isinstance(value, dict):
        return None
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        return None
    if isinstance(counts, str) and counts.isascii():
        return RunLengths((size[0], size[1]), counts.encode("ascii"))
    if isinstance(counts, list) and all(isinstance(run, int) for run in counts) and sum(counts) == size[0] * size[1]:
        return RunLengths((size[0], size[1]), np.array(counts, np.int64))
    return None


def _checked(path: Path, document: dict[str, Any], name: str, kind: type[Any], needs: str) -> Iterator[Any]:
    for place, value in enumerate(document[name]):
        if not isinstance(value, kind):
            raise UserError(f"{path}: {name}[{place}] needs {needs}; only COCO object instances can be compared")
        yield value


def _categories(path: Path, values: list[Any]) -> Iterator[dict[str, Any]]:
    for place, value in enumerate(values):
        if not (isinstance(value, dict) and _is_id(value.get("id")) and isinstance(value.get("name"), str)):
            raise UserError(f"{path}: categories[{place}] needs an id and a name")
        yield value


def _check_once(path: Path, images: list[TruthImage]) -> None:
    for what, values in (("id", [image.id for image in images]), ("file_name", [image.file_name for image in images])):
        if len(set(values)) < len(values):
            twice, _ = Counter(values).most_common(1)[0]
            raise UserError(f"{path}: two images have the {what} {twice!r}; each image may stand there once")


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def objects_of(
    items: Sequence[TruthObject], places: Sequence[int], size: tuple[int, int], path: Path, masks: bool
) -> ImageObjects:
    """Arrays of one image's annotations, of classes that are compared.

    places are those of their classes in the list of classes; path is for errors; with `masks` all have masks.

    Raises:
        UserError: A mask is damaged, or of another size than its image.
    """
    return ImageObjects(
        class_index=np.array(places, np.int64),
        xywh=np.array([item.xywh for item in items], np.float64).reshape(-1, 4),
        crowd=np.array([item.crowd for item in items], np.bool_),
        masks=[_mask(item, size, path) for item in items] if masks else None,
    )


def _mask(item: TruthObject, size: tuple[int, int], path: Path) -> Rle:
    from pycocotools import mask as mask_utils

    mask = item.segmentation
    if mask is None:
        raise ValueError(f"annotation {item.id!r} has no mask")
    if not isinstance(mask, RunLengths):
        rle: Rle = mask_utils.merge(mask_utils.frPyObjects([part.tolist() for part in mask], *size))
        return rle
    if mask.size != size:
        raise UserError(
            f"{path}: the mask of annotation {item.id!r} is {mask.size[1]} x {mask.size[0]} pixels, its image "
            f"{size[1]} x {size[0]}; export the masks in the size of the images"
        )
    if isinstance(mask.counts, bytes):
        # pycocotools trusts them, and would read beyond its arrays.
        if not is_rle(mask.counts, *size):
            raise UserError(f"{path}: the run lengths of annotation {item.id!r} are damaged")
        return {"size": list(size), "counts": mask.counts}
    plain: Rle = mask_utils.frPyObjects({"size": list(size), "counts": mask.counts.tolist()}, *size)
    return plain


class PairedImages(NamedTuple):
    """Which image of the truth each key of the run is."""

    rule: Literal["file_name", "path_end"]
    """file_name: whole keys were equal; path_end: the last parts of the paths were."""
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


def pair_images(keys: Iterable[str], file_names: Sequence[str]) -> PairedImages:
    """Pair keys with file names.

    A key and a file name are the same image when they are equal. Only when no key at all has its equal, paths are
    compared from their ends, since data sets often name files without their folders, or below another one: then one
    must end with all the parts of the other, and it must be the only one that does so on either side.
    """
    whole = {name: place for place, name in enumerate(file_names)}
    equal: dict[str, int] = {}
    others: list[str] = []
    for key in keys:
        if key in whole:
            equal[key] = whole[key]
        elif not equal:
            others.append(key)
    return PairedImages("file_name", equal, []) if equal else _pair_ends(others, whole)


def _pair_ends(keys: Sequence[str], whole: Mapping[str, int]) -> PairedImages:
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
    return PairedImages("path_end", {key: place for key, place in paired.items() if claims[place] == 1}, ambiguous)


def pair_classes(class_names: Sequence[str], categories: Mapping[int | str, str]) -> PairedClasses:
    """Pair the classes of a run with categories of the truth by name; letter case and spaces around do not matter.

    Several categories of one name are one class. Where two classes of the run differ in nothing but case, a category
    goes to the one that it equals, or to the first.
    """
    folded: dict[str, str] = {}
    for name in class_names:
        folded.setdefault(_folded(name), name)
    own = set(class_names)
    class_of = {number: name if name in own else folded.get(_folded(name), "") for number, name in categories.items()}
    met = set(class_of.values())
    common = tuple(name for name in class_names if name in met)
    return PairedClasses(
        common=common,
        run_only=tuple(name for name in class_names if name not in met),
        truth_only=tuple(dict.fromkeys(categories[number] for number, name in class_of.items() if not name)),
        place_of_category={number: common.index(name) for number, name in class_of.items() if name},
    )


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _ends(path: str) -> Iterator[str]:
    """The path without its first folder, without its first two ..."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path
