"""Reads COCO ground truth: checks every element, counts what is left out, and gives arrays and masks of each image.

Types are normalised here and nowhere else: 1, 1.0 and "1" are one id. What cannot be taken is refused with the name of
the annotation; what COCO's own reader passes over, annotations of unknown images or categories, is counted.
"""

import math
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.evaluation import TruthFile
from vouch_labels.tasks.boxes_masks import compress_counts, is_rle
from vouch_labels.tasks.evaluate.json_lists import NotAnObjectError, NotJsonError, OnBytes, read_lists
from vouch_labels.tasks.evaluate.polygons import OutlineError, pack_polygons, rle_of_polygons
from vouch_labels.tasks.matching import ImageObjects, Rle

LARGEST: Final = 1e8
"""Numbers beyond it are no pixels, and native code keeps them in 32 bits."""
MOST_PIXELS: Final = 2**32 - 1
"""Of a mask; pycocotools counts them in 32 bits."""
MOST_NAME: Final = 4096
"""Characters of a file name or a category's name: the longest path of Linux."""
EXAMPLES: Final = 3

_LISTS: Final = ("images", "annotations", "categories")
_SWITCH: Final = {None: False, 0: False, 1: True, "0": False, "1": True}
"""Values of iscrowd and ignore; true is 1, false is 0, and so are 1.0 and 0.0."""
_NUMBERED, _NAMED, _NAMELESS = range(3)
"""Annotations whose id is a whole number, another text, or that have none."""
_BEYOND: Final = 0.1
"""Share of boxes beyond their image from which on the file is doubted: some tools let a box reach out."""
_FEW: Final = 5

Id = int | str


class TruthImage(NamedTuple):
    """One image of the file."""

    id: Id
    file_name: str
    width: int | None
    """Pixels; None when the file does not say."""
    height: int | None


class RunLengths(NamedTuple):
    """A mask as run lengths."""

    size: tuple[int, int]
    """Height and width."""
    counts: bytes
    """Compressed; checked when the mask is needed."""


@dataclass(frozen=True)
class Truth:
    """A ground-truth file: M images, and N annotations of known images and categories, those of an image together."""

    path: Path
    images: list[TruthImage]
    """In the order of the file."""
    categories: dict[Id, str]
    """Category id -> name, in the order of the file."""
    starts: NDArray[np.int64]
    """(M + 1,) first annotation of each image."""
    category: NDArray[np.int32]
    """(N,) place of each annotation's category in `categories`."""
    xywh: NDArray[np.float64]
    """(N, 4) left, top, width and height, pixels."""
    crowd: NDArray[np.bool_]
    """(N,) regions in which labels are neither right nor wrong."""
    has_mask: NDArray[np.bool_]
    """(N,) whether there is a mask."""
    masks: list[bytes | RunLengths | None]
    """N packed polygons or run lengths; empty where they were not asked for."""
    numbers: NDArray[np.int64]
    """(N,) ids of annotations, or their place in the list of the file where the id is no whole number."""
    numbered: NDArray[np.bool_]
    """(N,) whether it is an id."""
    score: NDArray[np.float32]
    """(N,) scores in [0, 1], which labels of a model have; NaN where there is none."""
    file: TruthFile
    """What was read, and what was left out."""

    def counts(self) -> dict[str, int]:
        """Annotations of each category by name, crowd regions included."""
        found: dict[str, int] = {}
        amounts = np.bincount(self.category, minlength=len(self.categories)).tolist()
        for name, number in zip(self.categories.values(), amounts, strict=True):
            found[name] = found.get(name, 0) + number
        return found

    def name(self, row: int) -> str:
        """Name an annotation for people."""
        return f"annotation {self.numbers[row]}" if self.numbered[row] else f"annotations[{self.numbers[row]}]"

    def rows(self, place: int) -> NDArray[np.int64]:
        """Annotations of the image at a place in `images`, (A,)."""
        return np.arange(self.starts[place], self.starts[place + 1])


def read_truth(path: Path, masks: bool = True, progress: OnBytes | None = None) -> Truth:
    """Read a COCO instances file, an element at a time.

    Memory is that of what is kept: some 60 bytes an annotation, and with `masks` two bytes a coordinate.

    Raises:
        UserError: There is no such file, it holds no COCO instances, or an element is not what COCO has there.
    """
    reader = _Reader(path, masks)
    try:
        for name, place, value in read_lists(path, _LISTS, progress):
            reader.add(name, place, value)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; give a COCO annotation file") from None
    except NotJsonError as error:
        raise UserError(f"{path}: is no JSON ({error}); give a COCO annotation file") from None
    except NotAnObjectError:
        raise UserError(
            f"{path}: is no COCO instances file; it must be a JSON object with the lists {', '.join(_LISTS)}"
        ) from None
    except _MalformedError as error:
        raise UserError(f"{path}: {error}") from None
    return reader.truth()


class _MalformedError(Exception):
    """An element that is not what COCO has there; its text ends the user's line."""


class _Reader:
    """What is kept of the elements, in columns."""

    def __init__(self, path: Path, masks: bool) -> None:
        self._path, self._keep = path, masks
        self._images: list[TruthImage] = []
        self._place_of_image: dict[Id, int] = {}
        self._file_names: set[str] = set()
        self._categories: dict[Id, str] = {}
        # Annotations may come before the images that they name.
        self._image_codes: dict[Id, int] = {}
        self._category_codes: dict[Id, int] = {}
        self._image, self._category = array("q"), array("i")
        self._boxes, self._score = array("d"), array("f")
        self._crowd, self._kind, self._has_mask = bytearray(), bytearray(), bytearray()
        self._number = array("q")
        self._masks: list[bytes | RunLengths | None] = []
        self._ignored = 0

    def add(self, name: str, place: int, value: Any) -> None:  # noqa: ANN401 - not checked yet
        where = f"{name}[{place}]"
        if not isinstance(value, dict):
            raise _MalformedError(f"{where} is no object; only COCO object instances can be compared")
        if name == "annotations":
            self._annotation(where, place, value)
        elif name == "images":
            self._one_image(where, value)
        else:
            self._one_category(where, value)

    def _one_image(self, where: str, value: dict[str, Any]) -> None:
        if "id" not in value or "file_name" not in value:
            raise _MalformedError(f"{where} needs an id and a file_name; only COCO object instances can be compared")
        number, name = _id(value["id"]), _text(value["file_name"])
        if number is None or name is None:
            raise _MalformedError(
                f"image {_shown(value['id'])}: its id must be a whole number or text, its file_name text of up to "
                f"{MOST_NAME:,} characters"
            )
        name = name.replace("\\", "/").removeprefix("./")
        for what, twice, known in (("id", number, self._place_of_image), ("file_name", name, self._file_names)):
            if twice in known:
                raise _MalformedError(f"two images have the {what} {_shown(twice)}; each image may stand there once")
        self._place_of_image[number] = len(self._images)
        self._file_names.add(name)
        self._images.append(TruthImage(number, name, _side(value.get("width")), _side(value.get("height"))))

    def _one_category(self, where: str, value: dict[str, Any]) -> None:
        number, name = _id(value.get("id")), _text(value.get("name"))
        if number is None or name is None:
            raise _MalformedError(f"{where} needs an id and a name")
        if number in self._categories:
            raise _MalformedError(
                f"two categories have the id {_shown(number)}: {_shown(self._categories[number])} and {_shown(name)}; "
                "give each its own"
            )
        self._categories[number] = name

    def _annotation(self, where: str, place: int, value: dict[str, Any]) -> None:
        if not ("bbox" in value and "image_id" in value and "category_id" in value):
            raise _MalformedError(
                f"{where} needs an image_id, a category_id and a bbox; only COCO object instances can be compared"
            )
        own = value.get("id")
        name = where if own is None else f"annotation {_shown(own)}"
        image, category = _id(value["image_id"]), _id(value["category_id"])
        if image is None or category is None:
            raise _MalformedError(f"{name}: image_id and category_id must be whole numbers or texts")
        box = value["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_pixels, box)) and min(box[2:]) >= 0):
            raise _MalformedError(
                f"{name}: bbox must be left, top, width and height in numbers up to {LARGEST:.0e}, not {_shown(box)}"
            )
        crowd, ignored = (_switch(name, value, key) for key in ("iscrowd", "ignore"))
        mask = _mask(name, value.get("segmentation"), self._keep)
        self._ignored += ignored and not crowd
        self._image.append(self._image_codes.setdefault(image, len(self._image_codes)))
        self._category.append(self._category_codes.setdefault(category, len(self._category_codes)))
        self._boxes.extend(box)
        score = value.get("score")
        self._score.append(score if isinstance(score, int | float) and 0 <= score <= 1 else math.nan)
        self._crowd.append(crowd or ignored)
        self._has_mask.append(mask is not None)
        if self._keep and not isinstance(mask, bool):
            self._masks.append(mask)
        self._number_it(place, _id(own))

    def _number_it(self, place: int, own: Id | None) -> None:
        if isinstance(own, int) and abs(own) < 1 << 62:
            self._number.append(own)
            self._kind.append(_NUMBERED)
        elif own is None:
            self._number.append(place)
            self._kind.append(_NAMELESS)
        else:
            # Enough to see that a text is there twice.
            self._number.append(hash(own))
            self._kind.append(_NAMED)

    def truth(self) -> Truth:
        """What was read, annotations of an image together.

        Raises:
            UserError: Two annotations have one id.
        """
        count = len(self._image)
        kind, numbers = np.frombuffer(self._kind, np.uint8), np.frombuffer(self._number, np.int64)
        self._check_once(kind, numbers)
        numbers = np.where(kind == _NUMBERED, numbers, np.arange(count))
        image = _places(self._image, self._image_codes, self._place_of_image)
        place_of_category = {number: place for place, number in enumerate(self._categories)}
        category = _places(self._category, self._category_codes, place_of_category)
        known = (image >= 0) & (category >= 0)
        rows = np.flatnonzero(known)
        rows = rows[np.argsort(image[rows], kind="stable")]
        numbered = kind == _NUMBERED

        def named(among: NDArray[np.bool_]) -> tuple[str, ...]:
            first = np.flatnonzero(among)[:EXAMPLES].tolist()
            return tuple(f"annotation {numbers[row]}" if numbered[row] else f"annotations[{row}]" for row in first)

        no_category = (image >= 0) & (category < 0)
        file = TruthFile(
            annotations=count,
            unknown_image=int((image < 0).sum()),
            unknown_category=int(no_category.sum()),
            examples={"unknown_image": named(image < 0), "unknown_category": named(no_category)},
            ignored=self._ignored,
        )
        return Truth(
            path=self._path,
            images=self._images,
            categories=self._categories,
            starts=np.searchsorted(image[rows], np.arange(len(self._images) + 1)),
            category=category[rows].astype(np.int32),
            xywh=np.frombuffer(self._boxes, np.float64).reshape(-1, 4)[rows],
            crowd=np.frombuffer(self._crowd, np.bool_)[rows],
            has_mask=np.frombuffer(self._has_mask, np.bool_)[rows],
            masks=[self._masks[row] for row in rows.tolist()] if self._keep else [],
            numbers=numbers[rows],
            numbered=numbered[rows],
            score=np.frombuffer(self._score, np.float32)[rows],
            file=file,
        )

    def _check_once(self, kind: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
        for one in (_NUMBERED, _NAMED):
            given = np.sort(numbers[kind == one])
            twice = np.flatnonzero(given[1:] == given[:-1])
            if len(twice):
                at = np.flatnonzero((kind == one) & (numbers == given[twice[0]]))[:2].tolist()
                raise UserError(
                    f"{self._path}: annotations[{at[0]}] and annotations[{at[1]}] have the same id; give each its own"
                )


def _places(codes: "array[int]", code_of: dict[Id, int], place_of: dict[Id, int]) -> NDArray[np.int64]:
    """Places of what annotations name, -1 for what the file does not list."""
    place = np.array([place_of.get(number, -1) for number in code_of], np.int64)
    found: NDArray[np.int64] = place[np.array(codes, np.int64)] if len(codes) else np.zeros(0, np.int64)
    return found


def _id(value: object) -> Id | None:
    """Normalise an id: 1, 1.0 and "1" are one; None for what is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        # "007" is a text of its own.
        if value.isdecimal() and len(value) < 19 and str(int(value)) == value:
            return int(value)
        return _text(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _text(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > MOST_NAME:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can spell
        return None
    return value


def _side(value: object) -> int | None:
    """Pixels of a side; None where the file does not say, or says what cannot be."""
    number = _id(value)
    return number if isinstance(number, int) and number > 0 else None


def _is_pixels(value: object) -> bool:
    # Integers may be beyond the range of floats; not a number is no less than anything.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _switch(name: str, value: dict[str, Any], key: str) -> bool:
    given = value.get(key)
    try:
        return _SWITCH[given]
    except (KeyError, TypeError):
        raise _MalformedError(f"{name}: {key} must be 0 or 1, not {_shown(given)}") from None


def _mask(name: str, value: Any, keep: bool) -> bytes | RunLengths | bool | None:  # noqa: ANN401 - not checked yet
    """A mask, checked as far as it can be without its image; True stands for one that is not kept, None for none."""
    if isinstance(value, list):
        polygons = _polygons(name, value)
        if polygons is None:
            return None
        return pack_polygons(polygons) if keep else True
    if not isinstance(value, dict):
        return None
    size, counts = value.get("size"), value.get("counts")
    if not counts or not (isinstance(size, list) and len(size) == 2):
        return None
    height, width = (_side(side) for side in size)
    if height is None or width is None or height * width > MOST_PIXELS:
        raise _MalformedError(f"{name}: the size of its mask is {_shown(size)}, which is no height and width")
    if isinstance(counts, str):
        if not counts.isascii():
            _damaged(name)
        return RunLengths((height, width), counts.encode("ascii")) if keep else True
    if not (isinstance(counts, list) and all(map(_is_run, counts)) and sum(counts) == height * width):
        _damaged(name)
    runs = np.array(counts, np.int64)
    return RunLengths((height, width), compress_counts(runs, np.array([len(runs)]))[0]) if keep else True


def _polygons(name: str, value: list[Any]) -> list[NDArray[np.float64]] | None:
    """Polygons, flat each; None for what is none."""
    found = []
    for part in value:
        if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
            return None
        try:
            numbers = np.array(part)
        except ValueError:  # numbers and lists
            return None
        if (
            numbers.ndim != 1
            or numbers.dtype.kind not in "iufO"
            or (numbers.dtype == object and not all(isinstance(number, int | float) for number in part))
        ):
            return None
        # Integers beyond 64 bits are objects.
        if numbers.dtype == object or not (np.abs(numbers) <= LARGEST).all():
            raise _MalformedError(f"{name}: its outline has coordinates beyond {LARGEST:.0e}, which are no pixels")
        found.append(numbers.astype(np.float64))
    return found or None


def _is_run(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= MOST_PIXELS and value == int(value)


def _damaged(name: str) -> NoReturn:
    raise _MalformedError(f"{name}: the run lengths of its mask are damaged")


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a number of many digits"
    return text if len(text) <= 60 else f"{text[:60]}..."


def objects_of(
    truth: Truth, rows: NDArray[np.int64], classes: NDArray[np.int64], size: tuple[int, int], masks: bool
) -> ImageObjects:
    """Arrays of one image's annotations, of classes that are compared.

    rows (A,) are theirs in the truth, classes (A,) the places of their classes in the list of classes, size is the
    height and width of the image; with `masks` all have masks.

    Raises:
        UserError: A mask is damaged, or of another size than its image.
    """
    return ImageObjects(
        class_index=classes.astype(np.int64),
        xywh=truth.xywh[rows],
        crowd=truth.crowd[rows],
        masks=[_drawn(truth, row, size) for row in rows.tolist()] if masks else None,
    )


def _drawn(truth: Truth, row: int, size: tuple[int, int]) -> Rle:
    mask, name = truth.masks[row], truth.name(row)
    if mask is None:
        raise ValueError(f"{name} has no mask")
    if isinstance(mask, bytes):
        try:
            return rle_of_polygons(mask, size)
        except OutlineError as error:
            raise UserError(f"{truth.path}: {name} has {error}, which is no outline of an object") from None
    if mask.size != size:
        raise UserError(
            f"{truth.path}: the mask of {name} is {mask.size[1]} x {mask.size[0]} pixels, its image "
            f"{size[1]} x {size[0]}; export the masks in the size of the images"
        )
    # pycocotools trusts them, and would read beyond its arrays.
    if not is_rle(mask.counts, *size):
        raise UserError(f"{truth.path}: the run lengths of {name} are damaged")
    return {"size": list(size), "counts": mask.counts}


class BoxCheck:
    """Sees by the boxes of the images compared whether they are what COCO has: left, top, width, height in pixels."""

    def __init__(self) -> None:
        """Begin without a box."""
        self._boxes = self._beyond = self._corners = self._tiny = 0

    def add(self, xywh: NDArray[np.float64], size: tuple[int, int]) -> None:
        """Look at the (A, 4) boxes of an image of this height and width."""
        sides = np.array([size[1], size[0]], np.float64)
        # Tools round, and some draw a little over the edge.
        allowed = sides + np.maximum(2, sides / 100)
        ends = xywh[:, :2] + xywh[:, 2:]
        self._boxes += len(xywh)
        self._beyond += int((ends > allowed).any(axis=1).sum())
        self._corners += int(((xywh[:, 2:] > xywh[:, :2]) & (xywh[:, 2:] <= allowed)).all(axis=1).sum())
        self._tiny += int(((ends <= 1.001) & (xywh[:, 2:] < 1)).all(axis=1).sum())

    def hints(self) -> tuple[str, ...]:
        """What is wrong with the boxes as a whole, a line each."""
        if not self._boxes:
            return ()
        if self._tiny == self._boxes:
            return ("every box lies within the first pixel: bbox is in pixels, not a share from 0 to 1",)
        if self._beyond < _FEW or self._beyond < _BEYOND * self._boxes:
            return ()
        line = f"{self._beyond:,} of {self._boxes:,} boxes reach beyond their image"
        if self._corners == self._boxes:
            line += ", and none would as x0, y0, x1, y1: bbox is left, top, width, height"
        return (line,)
