"""Exports as trainers and readers see them that are no dependency: they are installed beside what is here."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processes import HANG_S
from vouch_labels.tasks.labels.records import ExportImage

pytestmark = pytest.mark.slow

CLASSES = ("bolt", 'a "hex" nut\\', "überwurf 螺母")

# What they need beside the packages that are here already; pinned, since each was looked into in this version.
PACKAGES = (
    *("ultralytics==8.4.190", "ultralytics-thop==2.2.3", "libreyolo==1.6.0", "labelformat==0.1.17", "lvis==0.5.3"),
    *("datasets==5.2.0", "multiprocess==0.70.19", "dill==0.4.1", "xxhash==4.1.0"),
    *("webdataset==1.0.2", "braceexpand==0.1.7", "pydantic-xml==2.22.0"),
)


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs a script in an environment that has PACKAGES and, behind them, everything that is here."""
    folder = tmp_path_factory.mktemp("readers")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    ours = sysconfig.get_path("purelib")
    (path,) = (folder / "venv/lib").glob("python3*/site-packages")
    (path / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--python", str(python)]
    installed = subprocess.run([*install, *PACKAGES], capture_output=True, text=True, timeout=HANG_S)
    if installed.returncode:
        pytest.skip(f"the readers cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
    environment = os.environ | {
        "HOME": str(folder),
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }

    def run(script: str | list[str], *arguments: object) -> Any:
        if isinstance(script, list):  # a command of theirs
            done = subprocess.run(
                [python.with_name(script[0]), *script[1:]],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=HANG_S,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout + done.stderr
        out = folder / "out.json"
        out.unlink(missing_ok=True)
        done = subprocess.run(
            [python, "-c", script, *map(str, arguments), out],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(out.read_text(encoding="utf-8"))

    return run


def accepted(image: ExportImage) -> list:
    return [label for label in image.labels if label.decision == "accept"]


def check(found: list, image: ExportImage, atol: float) -> None:
    """Compare pairs of class number and xyxy in pixels with the plain labels of an image."""
    assert [CLASSES[int(number)] for number, _ in found] == [label.class_name for label in accepted(image)]
    for (_, box), label in zip(found, accepted(image), strict=True):
        np.testing.assert_allclose(box, label.xyxy, atol=atol)


ULTRALYTICS = """
import json, sys
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

boxes, outlines, out = sys.argv[1:]
found = {}
for name, data, task in (("boxes", boxes, "detect"), ("outlines", outlines, "segment")):
    about = check_det_dataset(data)
    dataset = YOLODataset(img_path=about["train"], data=about, task=task, augment=False, imgsz=96)
    found[name] = {
        entry["im_file"]: [entry["cls"].ravel().tolist(), entry["bboxes"].tolist(), [len(s) for s in entry["segments"]]]
        for entry in dataset.labels
    }
model = YOLO("yolo11n.yaml")
model.train(data=boxes, epochs=1, imgsz=64, device="cpu", workers=0, batch=4, amp=False, plots=False, pretrained=False)
json.dump({**found, "trained": model.trainer.epoch, "names": model.names}, open(out, "w"))
"""


def test_ultralytics_reads_boxes_and_polygons_and_trains(write, images, read):
    folders = [
        write(formats=["yolo"], name=name, undecided="drop", images="copy", masks=masks).folder
        for name, masks in (("boxes", "none"), ("outlines", "polygons"))
    ]
    found = read(ULTRALYTICS, *(folder / "data.yaml" for folder in folders))
    assert found["trained"] == 0
    assert list(found["names"].values()) == list(CLASSES)
    for name, folder, atol in (("boxes", folders[0], 0.01), ("outlines", folders[1], 1.0)):
        assert len(found[name]) == 4
        for image in images:
            numbers, boxes, points = found[name][str(folder / "images" / image.key)]
            size = [image.width, image.height] * 2
            corners = [(np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * size) for x, y, w, h in boxes]
            check(list(zip(numbers, corners, strict=True)), image, atol)
            assert [count > 4 for count in points] == [True] * len(numbers) if name == "outlines" else points == []


def test_the_line_of_the_page_trains_on_the_demo(read, tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\$ (yolo train .*)$", page, re.MULTILINE)
    assert "$ vouch demo --format yolo\n" in page
    vouch = Path(sys.executable).with_name("vouch")
    demo = [vouch, "demo", tmp_path / "demo", "--format", "yolo", "--plain"]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr[-3000:]
    command = shlex.split(line.replace("data=demo/", f"data={tmp_path}/demo/"))
    told = read([*command, f"project={tmp_path}/runs", "plots=False", "workers=0"])
    assert "1 epochs completed" in told
    counts = json.loads((tmp_path / "demo/workspace/datasets/yolo.json").read_text(encoding="utf-8"))
    assert counts["images"] + counts["images_left_out"] == 48
    assert counts["splits"]["train"]["annotations"] > 50


LIBREYOLO = """
import json, sys
from libreyolo import LibreYOLO9

data, out = sys.argv[1:]
model = LibreYOLO9(None, size="t", nb_classes=3)
found = model.train(data=data, epochs=1, imgsz=64, device="cpu", workers=0, amp=False, batch=2, project="runs")
json.dump({key: str(value) for key, value in found.items()}, open(out, "w"))
"""


def test_libreyolo_trains(write, images, read):
    splits = {"train": 0.5, "val": 0.5, "test": 0}
    written = write(formats=["yolo"], undecided="drop", images="copy", splits=splits)
    assert all(written.summary.splits[name].images for name in ("train", "val"))
    assert read(LIBREYOLO, written.folder / "data.yaml")


HUGGINGFACE = """
import json, sys
from datasets import load_dataset

folder, images, out = sys.argv[1:]
found = {}
for name, where in (("huggingface", {"path": folder}), ("imagefolder", {"path": "imagefolder", "data_dir": images})):
    data = load_dataset(**where)
    rows = [row for split in data.values() for row in split]
    found[name] = [
        [row["image_id"], row["image"].size, row["objects"]["category"], row["objects"]["bbox"],
         row["objects"]["rle_counts"], row["objects"]["iscrowd"]]
        for row in rows
    ]
    found[name + " splits"] = sorted(data)
found["names"] = load_dataset(folder)["train"].features["objects"]["category"].feature.names
json.dump(found, open(out, "w"))
"""


def test_datasets_loads_parquet_and_imagefolder(write, images, read):
    given = [images[0]._replace(sha256="1"), *images[1:]]
    how: dict[str, Any] = {"undecided": "drop", "splits": {"train": 0.5, "val": 0.5, "test": 0}}
    folders = [write(given, formats=[form], **how).folder for form in ("huggingface", "imagefolder")]
    found = read(HUGGINGFACE, *folders)
    assert found["names"] == list(CLASSES)
    for form in ("huggingface", "imagefolder"):
        assert found[f"{form} splits"] == ["train", "validation"]
        assert sorted(row[0] for row in found[form]) == [1, 2, 3, 4]
        for number, size, classes, boxes, counts, crowd in found[form]:
            image = images[number - 1]
            assert size == [image.width, image.height]
            check([(n, [x, y, x + w, y + h]) for n, (x, y, w, h) in zip(classes, boxes, strict=True)], image, 0.01)
            assert [text.encode() for text in counts] == [label.rle_counts for label in accepted(image)]
            assert not any(crowd)


WEBDATASET = """
import glob, json, sys
import webdataset

folder, out = sys.argv[1:]
samples = webdataset.WebDataset(sorted(glob.glob(folder + "/*.tar")), shardshuffle=False).decode("pil")
found = []
for sample in samples:
    (picture,) = (value for key, value in sample.items() if key in ("jpg", "png"))
    found.append([sample["__key__"], picture.size, sample["json"]])
json.dump(found, open(out, "w"))
"""


def test_webdataset_pairs_images_and_labels(write, images, read, source):
    dotted = images[0]._replace(key="north/a.b.jpg")
    Image.open(source.root / "north/a.jpg").save(source.root / dotted.key)
    given = [dotted, *images[1:]]
    found = read(WEBDATASET, write(given, formats=["webdataset"], undecided="drop").folder)
    assert [about["file_name"] for _, _, about in found] == [image.key for image in given]
    for (_, size, about), image in zip(found, given, strict=True):
        assert size == [image.width, image.height]
        boxes = [(one["category_id"], one["bbox"]) for one in about["annotations"]]
        check([(number, [x, y, x + w, y + h]) for number, (x, y, w, h) in boxes], image, 0.01)


LVIS = """
import json, sys
import numpy
numpy.float = float  # lvis 0.5.3 is older than numpy 1.20
from lvis import LVIS, LVISEval, LVISResults

path, out = sys.argv[1:]
truth = LVIS(path)
detections = [
    {key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5} for one in truth.anns.values()
]
# One more of a class of which there may be more in that image, one of a class that it is not judged by.
image = truth.imgs[4]
detections.append({"image_id": 4, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.9})
detections.append({"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.9})
evaluation = LVISEval(truth, LVISResults(truth, detections), "bbox")
evaluation.run()
areas = [[int(truth.ann_to_mask(one).sum()), one["area"]] for one in truth.anns.values()]
boxes = [[one["image_id"], one["category_id"], one["bbox"]] for one in truth.anns.values()]
json.dump({"ap": evaluation.get_results()["AP"], "areas": areas, "boxes": boxes}, open(out, "w"))
"""


def test_lvis_evaluates_and_punishes_nothing_that_is_in_doubt(write, images, read):
    given = [image._replace(checked=frozenset(CLASSES)) for image in images]
    found = read(LVIS, write(given, formats=["lvis"]).folder / "lvis.json")
    assert found["ap"] == pytest.approx(1)
    assert all(pixels == area for pixels, area in found["areas"])
    for number, image in enumerate(images, 1):
        boxes = [(category - 1, box) for place, category, box in found["boxes"] if place == number]
        check([(category, [x, y, x + w, y + h]) for category, (x, y, w, h) in boxes], image, 0.011)


LABELFORMAT = """
import json, sys
from pathlib import Path
from labelformat.formats import PascalVOCObjectDetectionInput, YOLOv8ObjectDetectionInput

yolo, voc, names, out = sys.argv[1:]
found = {}
for name, given in {
    "yolo": YOLOv8ObjectDetectionInput(input_file=Path(yolo) / "data.yaml", input_split="train"),
    "voc": PascalVOCObjectDetectionInput(input_folder=Path(voc) / "Annotations", category_names=names),
}.items():
    found[name] = {
        str(one.image.filename): [
            [o.category.name, [o.box.xmin, o.box.ymin, o.box.xmax, o.box.ymax]] for o in one.objects
        ]
        for one in given.get_labels()
    }
json.dump(found, open(out, "w"))
"""


def test_labelformat_reads_yolo_with_folders(write, images, read):
    folders = [write(formats=[form], undecided="drop", images="copy").folder for form in ("yolo", "voc")]
    found = read(LABELFORMAT, *folders, ",".join(CLASSES))
    for image in images:
        boxes = [(CLASSES.index(name), box) for name, box in found["yolo"][image.key]]
        check(boxes, image, 0.02)
    # It looks at the XML files of the top folder alone.
    assert list(found["voc"]) == ["empty.png"]
