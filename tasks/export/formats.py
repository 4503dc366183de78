"""The formats of data sets: what writes each, where it has its images, and what is written last of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

from vouch_labels.schemas.campaign import ExportConfig
from vouch_labels.tasks.export.coco import CocoFiles
from vouch_labels.tasks.export.decide import regions, split_of_image, waiting
from vouch_labels.tasks.export.fiftyone import FiftyOneFiles
from vouch_labels.tasks.export.huggingface import HuggingfaceFiles, ImageFolder, imagefolder_path
from vouch_labels.tasks.export.images import Layout
from vouch_labels.tasks.export.lvis import LvisFiles
from vouch_labels.tasks.export.voc import VocFolder, voc_path, voc_refuses
from vouch_labels.tasks.export.webdataset import WebDatasetFiles
from vouch_labels.tasks.export.written import Format, Target
from vouch_labels.tasks.export.yolo import YoloFolder, yolo_path
from vouch_labels.tasks.labels.records import ExportImage


class FormatKind(NamedTuple):
    """What is known of a format before anything is written."""

    open: Callable[[Target], AbstractContextManager[Format]]
    image_path: Callable[[str, str | None], str]
    """(key, split) -> where the image lies in the data set's folder."""
    last: tuple[str, ...] = ()
    """Files that readers start from: removed first and written last, so that none reads half a data set."""
    label_suffix: str = ""
    """Suffix of the file that an image's labels have to themselves, named as the image; empty: they have none."""
    holds_images: bool = False
    """Whether the images are inside its files."""
    refuses: Callable[[str], str] | None = None
    """Says why an image of this key cannot be in such a data set; empty: it can."""


def _coco_path(key: str, _: str | None) -> str:
    # One folder for all: the files of all images and those of splits name the same.
    return f"images/{key}"


FORMATS: Final = {
    "coco": FormatKind(CocoFiles.open, _coco_path),
    "parquet": FormatKind(CocoFiles.open, _coco_path),
    "yolo": FormatKind(YoloFolder.open, yolo_path, ("data.yaml",), ".txt"),
    "voc": FormatKind(
        VocFolder.open,
        voc_path,
        tuple(f"ImageSets/Main/{name}.txt" for name in ("trainval", "train", "val", "test")),
        ".xml",
        refuses=voc_refuses,
    ),
    "lvis": FormatKind(LvisFiles.open, _coco_path),
    "huggingface": FormatKind(HuggingfaceFiles.open, _coco_path, ("README.md",), holds_images=True),
    "imagefolder": FormatKind(
        ImageFolder.open, imagefolder_path, tuple(f"{name}/metadata.jsonl" for name in ("train", "validation", "test"))
    ),
    "fiftyone": FormatKind(FiftyOneFiles.open, _coco_path, ("metadata.json",)),
    "webdataset": FormatKind(WebDatasetFiles.open, _coco_path, ("classes.json",), holds_images=True),
}


def kind_of(config: ExportConfig) -> FormatKind:
    """The format of a data set, of one of `ExportConfig.data_sets`."""
    return FORMATS[config.formats[0]]


def open_format(target: Target) -> AbstractContextManager[Format]:
    """Open what writes a data set."""
    return kind_of(target.config).open(target)


def layout_of(config: ExportConfig) -> Layout:
    """Where the images of a data set go, and how they are changed."""
    kind = kind_of(config)
    return Layout(
        path=lambda image: image_path(config, image),
        regions=(lambda image: regions(waiting(image), image)) if config.undecided == "blank" else None,
        refuses=kind.refuses,
        label_suffix=kind.label_suffix,
    )


def image_path(config: ExportConfig, image: ExportImage) -> str:
    """Where an image lies in the data set's folder."""
    return kind_of(config).image_path(image.key, split_of_image(config.splits, image))
