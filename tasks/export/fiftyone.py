"""Writes a data set as FiftyOne's own exporter does (FiftyOneDataset), for its user to load with one call.

Its importer for COCO cuts masks to the box, of which most reach outside. So there are two fields: `ground_truth` has
the boxes, and `masks` the masks, each in a box of its own around its pixels, under the same label_id.
"""

import base64
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import numpy as np

from vouch_labels.tasks.export.label_files import LabelFiles
from vouch_labels.tasks.export.polygons import decoded
from vouch_labels.tasks.export.written import ALL, Target, WrittenImage, WrittenLabel
from vouch_labels.tasks.labels.records import AnnotationFile, ExportImage

_VERSION: Final = "1.22.1"
"""Version of FiftyOne whose document this is; later ones migrate it."""

_FIELDS: Final = "fiftyone.core.fields."
_Field = dict[str, Any]


class FiftyOneFiles:
    """metadata.json, which describes the fields, and samples.json."""

    def __init__(self, target: Target, files: LabelFiles, samples: BinaryIO) -> None:
        """Take what keeps the images, and the file of the samples, its head written."""
        self._target, self._files, self._samples = target, files, samples
        self._images: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["FiftyOneFiles"]:
        """Open the folder; metadata.json comes last."""
        with (
            target.store.open_writer(f"{target.prefix}/samples.json") as samples,
            LabelFiles.open(target.store, target.prefix, "images") as files,
        ):
            samples.write(b'{"samples": [')
            yield cls(target, files, samples)
            samples.write(b"\n]}\n")
        text = json.dumps(_metadata(target), ensure_ascii=False, indent=1)
        target.store.put(f"{target.prefix}/metadata.json", f"{text}\n".encode())

    def add(self, image: WrittenImage) -> None:
        """Append an image."""
        source, masks = image.image, self._target.config.masks
        self._files.keep(image.file_name)
        sample = {
            "_id": {"$oid": _identity(source.key)},
            "filepath": image.file_name,
            "tags": [] if image.split is None else [image.split],
            "metadata": {"_cls": "ImageMetadata", "width": source.width, "height": source.height},
            "_media_type": "image",
            # FiftyOne shuffles by it.
            "_rand": int(_identity(source.key)[:12], 16) / 16**12,
            "ground_truth": _detections([_detection(one, source, with_mask=False) for one in image.labels]),
            "not_exhaustive": list(image.not_exhaustive),
        }
        if masks != "none":
            some = [one for one in image.labels if one.label.rle_counts is not None and one.label.area]
            sample["masks"] = _detections([_detection(one, source, with_mask=True) for one in some])
        comma = b",\n" if self._images[ALL] else b"\n"
        self._samples.write(comma + json.dumps(sample, ensure_ascii=False).encode())
        for split in (ALL,) if image.split is None else (ALL, image.split):
            self._images[split] += 1
            self._labels[split] += len(image.labels)

    def files(self, split: str) -> list[AnnotationFile]:
        """The file of the samples, whatever the split: it is a tag there."""
        key = f"{self._target.prefix}/samples.json"
        return [AnnotationFile(file=key, images=self._images[split], annotations=self._labels[split])]


def _detections(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_cls": "Detections", "detections": found}


def _detection(written: WrittenLabel, image: ExportImage, *, with_mask: bool) -> dict[str, Any]:
    label, (x0, y0, x1, y1) = written.label, written.box
    found = {
        "_id": {"$oid": _identity(f"{image.key}\n{written.number}\n{with_mask}")},
        "_cls": "Detection",
        "attributes": {},
        "tags": ["undecided"] if written.crowd else [],
        "label": label.class_name,
        "iscrowd": int(written.crowd),
        "label_id": label.label_id,
        "decision": label.decision,
        "policy": label.policy,
        "provenance": label.provenance,
        "verdict": label.verdict,
        "p_correct": label.p_correct,
    }
    if label.score == label.score:  # NaN for what people drew
        found["confidence"] = label.score
    if with_mask and label.rle_counts is not None:
        mask = decoded(label.rle_counts, image)
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        file = io.BytesIO()
        np.save(file, mask[y0:y1, x0:x1])
        text = base64.b64encode(zlib.compress(file.getvalue())).decode()
        found["mask"] = {"$binary": {"base64": text, "subType": "00"}}
    width, height = image.width, image.height
    found["bounding_box"] = [float(x0 / width), float(y0 / height), float((x1 - x0) / width), float((y1 - y0) / height)]
    return found


def _identity(name: str) -> str:
    """24 hexadecimal digits, as an identifier of MongoDB; the same for the same name."""
    return hashlib.sha256(name.encode()).hexdigest()[:24]


def _field(name: str, kind: str, subfield: str = "", document: str = "", fields: list[_Field] | None = None) -> _Field:
    return {
        "name": name,
        "ftype": f"{_FIELDS}{kind}Field",
        "embedded_doc_type": f"fiftyone.core.{document}" if document else None,
        "subfield": f"{_FIELDS}{subfield}Field" if subfield else None,
        "fields": fields or [],
        "db_field": "_id" if name == "id" else name,
        "description": None,
        "info": None,
        "read_only": name in ("created_at", "last_modified_at"),
    }


def _labels(name: str) -> _Field:
    strings = ("label", "mask_path", "label_id", "decision", "policy", "provenance", "verdict")
    detection = [
        _field("id", "ObjectId"),
        _field("tags", "List", "String"),
        _field("attributes", "Dict", "EmbeddedDocument", "labels.Attribute"),
        *(_field(one, "String") for one in strings),
        _field("bounding_box", "List", "Float"),
        _field("mask", "Array"),
        *(_field(one, "Float") for one in ("confidence", "p_correct")),
        *(_field(one, "Int") for one in ("index", "iscrowd")),
    ]
    many = _field("detections", "List", "EmbeddedDocument", "labels.Detection", detection)
    return _field(name, "EmbeddedDocument", document="labels.Detections", fields=[many])


def _metadata(target: Target) -> dict[str, Any]:
    about = [_field(name, "Int") for name in ("size_bytes", "width", "height", "num_channels")]
    about.append(_field("mime_type", "String"))
    fields = [
        _field("id", "ObjectId"),
        _field("filepath", "String"),
        _field("tags", "List", "String"),
        _field(
            "metadata",
            "EmbeddedDocument",
            document="metadata.ImageMetadata",
            fields=about,
        ),
        _field("created_at", "DateTime"),
        _field("last_modified_at", "DateTime"),
        _field("_media_type", "String"),
        _field("_rand", "Float"),
        _field("_dataset_id", "ObjectId"),
        _labels("ground_truth"),
        *([] if target.config.masks == "none" else [_labels("masks")]),
        _field("not_exhaustive", "List", "String"),
    ]
    return {
        "version": _VERSION,
        "media_type": "image",
        "info": {"description": target.config.description, "version": target.version},
        "default_classes": list(target.class_names),
        "sample_fields": fields,
    }
