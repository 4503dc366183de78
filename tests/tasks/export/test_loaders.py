"""The export as the usual readers see it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.processes import HANG_S
from vouch_labels.review_ui.queue.database import mongod

CLASSES = ("bolt", 'a "hex" nut\\', "überwurf 螺母")
ANNOTATIONS = "annotations.json"


def expected_masks(images):
    """Label id -> mask; the unreviewed label whose mask is empty is its box, filled."""
    masks = {
        label.label_id: mask_utils.decode({"size": [image.height, image.width], "counts": label.rle_counts}).astype(
            bool
        )
        for image in images
        for label in image.labels
    }
    empty = masks["0000000000000005"]
    assert not empty.any()
    empty[8:9, 7:8] = True
    return masks


def test_pycocotools_reads_it(write, images):
    coco = COCO(str(write().folder / ANNOTATIONS))
    masks = expected_masks(images)
    assert len(coco.anns) == len(masks) == 6
    for annotation in coco.anns.values():
        np.testing.assert_array_equal(coco.annToMask(annotation), masks[annotation["label_id"]])
    assert [coco.cats[number]["name"] for number in sorted(coco.cats)] == list(CLASSES)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_pycocotools_evaluation_ignores_undecided_regions(write, kind):
    """Perfect detections score 1, and ones on crowd regions cost nothing; as plain labels they would be missed."""
    truth = COCO(str(write(undecided="ignore").folder / ANNOTATIONS))
    plain = COCO(str(write(undecided="include").folder / ANNOTATIONS))
    accepted = [entry for entry in truth.dataset["annotations"] if not entry["iscrowd"]]
    unreviewed = [entry for entry in truth.dataset["annotations"] if entry["iscrowd"]]
    assert accepted
    assert unreviewed

    def results(entries, score):
        keys = ("image_id", "category_id", "bbox" if kind == "bbox" else "segmentation")
        return [{key: entry[key] for key in keys} | {"score": score} for entry in entries]

    on_crowds = results(accepted, 0.5) + results(unreviewed, 0.9)
    assert average_precision(truth, on_crowds, kind) == pytest.approx(1)
    assert average_precision(plain, results(accepted, 0.5), kind) < 1


def average_precision(truth: COCO, results: list[dict], kind: str) -> float:
    evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("how", ["none", "copy", "link"])
def test_torchvision_reads_it(write, images, source, how):
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

    written = write(images=how)
    root = source.root if how == "none" else written.folder
    plain = CocoDetection(str(root), str(written.folder / ANNOTATIONS))
    assert len(plain) == 4
    for (picture, target), image in zip(plain, images, strict=True):
        assert picture.size == (image.width, image.height)
        assert [entry["label_id"] for entry in target] == [label.label_id for label in image.labels]

    masks = expected_masks(images)
    wrapped = wrap_dataset_for_transforms_v2(plain, target_keys=["boxes", "labels", "masks"])
    for (_, target), image in zip(wrapped, images, strict=True):
        for place, label in enumerate(image.labels):
            np.testing.assert_array_equal(target["masks"][place].numpy().astype(bool), masks[label.label_id])
            np.testing.assert_allclose(target["boxes"][place], label.xyxy, atol=0.01)
            assert target["labels"][place] == CLASSES.index(label.class_name) + 1


@pytest.mark.parametrize("preset", ["coco", "rtdetr"])
def test_supervision_reads_it(write, images, preset):
    written = write(images="link", preset=preset)
    found = sv.DetectionDataset.from_coco(str(written.folder), str(written.folder / ANNOTATIONS))
    assert found.classes == list(CLASSES)
    masks = expected_masks(images)
    assert len(found) == 4
    for (path, picture, detections), image in zip(found, images, strict=True):
        assert Path(path).relative_to(written.folder / "images") == Path(image.key)
        assert picture.shape[:2] == (image.height, image.width)
        assert len(detections) == len(image.labels)
        for place, label in enumerate(image.labels):
            np.testing.assert_allclose(detections.xyxy[place], label.xyxy, atol=0.01)
            assert found.classes[detections.class_id[place]] == label.class_name
            assert detections.data["iscrowd"][place] == (label.decision == "review")
            np.testing.assert_array_equal(detections.mask[place], masks[label.label_id])


@pytest.mark.parametrize("name", ["RTDetrImageProcessor", "DetrImageProcessor"])
def test_processors_of_transformers_read_it_and_leave_crowd_regions_out(write, images, source, name):
    """RTDetrImageProcessor is that of D-FINE as well."""
    import transformers
    from PIL import Image

    document = json.loads((write(preset="rtdetr").folder / ANNOTATIONS).read_text(encoding="utf-8"))
    processor = getattr(transformers, name)(size={"height": 64, "width": 64})
    for entry, image in zip(document["images"], images, strict=True):
        some = [one for one in document["annotations"] if one["image_id"] == entry["id"]]
        with Image.open(source.root / image.key) as picture:
            target = {"image_id": entry["id"], "annotations": some}
            found = processor(images=[picture], annotations=[target], return_tensors="pt")["labels"][0]
        accepted = [label for label in image.labels if label.decision == "accept"]
        assert [CLASSES[number] for number in found["class_labels"]] == [label.class_name for label in accepted]
        for (x, y, width, height), label in zip(found["boxes"].tolist(), accepted, strict=True):
            box = box_of((x - width / 2, y - height / 2, width, height), image)
            np.testing.assert_allclose(box, label.xyxy, atol=0.01)


READ = """
import json, sys
import fiftyone as fo

folder, labels, out = sys.argv[1:]
found = fo.Dataset.from_dir(
    dataset_type=fo.types.COCODetectionDataset, data_path=folder, labels_path=labels,
    label_types=["detections", "segmentations"], name="export",
)
seen = {}
for sample in found:
    boxes = {d["label_id"]: d for d in (sample.detections.detections if sample.detections else [])}
    for d in sample.segmentations.detections if sample.segmentations else []:
        same = boxes.pop(d["label_id"])
        assert same.bounding_box == d.bounding_box
        seen[d["label_id"]] = [
            sample.filepath, d.label, d.bounding_box, d.confidence, d["iscrowd"], d["decision"], d.mask.tolist(),
        ]
    assert not boxes
json.dump({"seen": seen, "samples": len(found), "classes": found.default_classes}, open(out, "w"))
"""


def run_with_fiftyone(tmp_path: Path, script: str, *arguments: object) -> None:
    with mongod(tmp_path / "database") as uri:
        # A home of its own, and a process of its own, since FiftyOne keeps its settings for life.
        environment = os.environ | {
            "FIFTYONE_DATABASE_URI": uri,
            "FIFTYONE_DATABASE_VALIDATION": "false",
            "FIFTYONE_DO_NOT_TRACK": "true",
            "FIFTYONE_DATABASE_DIR": str(tmp_path / "fiftyone"),
            "HOME": str(tmp_path),
        }
        subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            check=True,
            timeout=HANG_S,
        )


@pytest.mark.mongod
def test_fiftyone_reads_it(write, images, tmp_path):
    written = write(images="copy")
    out = tmp_path / "seen.json"
    run_with_fiftyone(tmp_path, READ, written.folder, written.folder / ANNOTATIONS, out)
    found = json.loads(out.read_text())
    assert found["samples"] == 4
    assert found["classes"] == list(CLASSES)
    masks = expected_masks(images)
    assert len(found["seen"]) == len(masks)
    for image in images:
        for label in image.labels:
            path, name, (x, y, width, height), confidence, crowd, decision, mask = found["seen"][label.label_id]
            assert Path(path) == written.folder / "images" / image.key
            assert (name, decision) == (label.class_name, label.decision)
            assert confidence == pytest.approx(label.score)
            assert crowd == (label.decision == "review")
            np.testing.assert_allclose(box_of((x, y, width, height), image), label.xyxy, atol=0.01)
            # FiftyOne keeps the part of the mask inside the box rounded to pixels.
            x0, y0, x1, y1 = (round(side) for side in label.xyxy)
            np.testing.assert_array_equal(np.array(mask).reshape(y1 - y0, x1 - x0), masks[label.label_id][y0:y1, x0:x1])


def box_of(box, image):
    x, y, width, height = box
    return np.array([x, y, x + width, y + height]) * [image.width, image.height, image.width, image.height]


READ_OWN = """
import json, sys
import fiftyone as fo

folder, yolo, voc, out = sys.argv[1:]
own = fo.Dataset.from_dir(dataset_dir=folder, dataset_type=fo.types.FiftyOneDataset)
seen = {}
for sample in own:
    masks = {d.label_id: d for d in sample.masks.detections}
    for d in sample.ground_truth.detections:
        mask = masks.pop(d.label_id, None)
        seen[d.label_id] = [
            sample.filepath, d.label, d.bounding_box, d.confidence, d.iscrowd, sample.tags,
            mask and [mask.bounding_box, mask.mask.tolist()],
        ]
    assert not masks
own.evaluate_detections("ground_truth", gt_field="ground_truth", eval_key="e", compute_mAP=True)
others = {}
for name, where in {
    "yolo": {"dataset_dir": yolo, "dataset_type": fo.types.YOLOv5Dataset, "yaml_path": "data.yaml",
             "split": "train"},
    "voc": {"data_path": voc + "/JPEGImages", "labels_path": voc + "/Annotations",
            "dataset_type": fo.types.VOCDetectionDataset},
}.items():
    found = fo.Dataset.from_dir(**where)
    others[name] = {
        sample.filepath: [[d.label, d.bounding_box] for d in sample.ground_truth.detections]
        if sample.ground_truth else [] for sample in found
    }
json.dump({"seen": seen, "classes": own.default_classes, "samples": len(own), "others": others,
           "sortable": own.bounds("ground_truth.detections.confidence")}, open(out, "w"))
"""


@pytest.mark.mongod
def test_fiftyone_reads_its_own_format_with_whole_masks_and_yolo_and_voc(write, images, tmp_path):
    written = write(formats=["fiftyone"], images="copy", splits={"train": 1, "val": 0, "test": 0})
    yolo, voc = (write(formats=[form], undecided="drop", images="copy").folder for form in ("yolo", "voc"))
    run_with_fiftyone(tmp_path, READ_OWN, written.folder, yolo, voc, tmp_path / "seen.json")
    found = json.loads((tmp_path / "seen.json").read_text())
    assert (found["samples"], found["classes"], found["sortable"]) == (4, list(CLASSES), [0.875, 0.875])
    masks = expected_masks(images)
    for image in images:
        for label in image.labels:
            path, name, box, confidence, crowd, tags, mask = found["seen"][label.label_id]
            assert Path(path) == written.folder / "images" / image.key
            assert (name, confidence, crowd, tags) == (
                label.class_name, 0.875, label.decision == "review", ["train"],
            )  # fmt: skip
            np.testing.assert_allclose(box_of(box, image), label.xyxy, atol=0.006)
            if label.area:
                x0, y0, x1, y1 = np.rint(box_of(mask[0], image)).astype(int)
                whole = np.zeros((image.height, image.width), bool)
                whole[y0:y1, x0:x1] = mask[1]
                np.testing.assert_array_equal(whole, masks[label.label_id])
        accepted = [label for label in image.labels if label.decision == "accept"]
        for form, folder, atol in (("yolo", yolo / "images", 0.02), ("voc", voc / "JPEGImages", 1.5)):
            boxes = found["others"][form][str(folder / image.key)]
            assert [name for name, _ in boxes] == [label.class_name for label in accepted]
            for (_, box), label in zip(boxes, accepted, strict=True):
                np.testing.assert_allclose(box_of(box, image), label.xyxy, atol=atol)
