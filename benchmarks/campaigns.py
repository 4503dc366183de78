"""What benchmarks label: campaigns over bundled samples, made-up pictures or a bucket, and the whole job over them."""

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from benchmarks.harness import in_child
from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.records import RunSummary
from vouch_labels.tasks.bench.timing import as_another_file

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

FAKE_MODELS: Final = {
    "device": "cpu",
    **{kind: {"backend": "fake", "checkpoint": "fake"} for kind in ("detector", "segmenter", "scorer")},
}

SAMPLES: Final = Path(__file__).parents[1] / "starter" / "samples"
IMAGES: Final = 96
QUICK_IMAGES: Final = 4

DISTINCT: Final = 64
"""Different pictures; their copies get other names."""
PER_FOLDER: Final = 1000

THREADS: Final = 16
PER_PAGE: Final = 1000


def write_campaign(folder: Path, images: Path, **sections: Mapping[str, Any] | list[Any] | str) -> Path:
    """Write a campaign with a fresh workspace, and with backends that need no model unless `sections` says otherwise.

    Args:
        folder: Gets campaign.yaml and the workspace.
        images: The source.
        sections: Replace whole sections of the campaign.

    Returns:
        The campaign file.
    """
    import yaml

    content = {
        "source": str(images),
        "workspace": str(folder / "workspace"),
        "classes": ["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
        "models": FAKE_MODELS,
        "routing": {"accept": {"detector_score": 0.5}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(content | sections), encoding="utf-8")
    return path


def sample_classes() -> list[str]:
    """Names of the classes that the samples show."""
    truth = json.loads((SAMPLES / "ground_truth.json").read_text(encoding="utf-8"))
    return [entry["name"] for entry in truth["categories"]]


def copy_samples(folder: Path, count: int) -> list[Path]:
    """Write `count` files, each round of the samples into a subfolder of its own, so that no copies are neighbours.

    Their contents differ, since what was labelled under another name is not labelled again.
    """
    samples = sorted(SAMPLES.glob("*.jpg"))
    files = []
    for number, sample in zip(range(count), cycle(samples), strict=False):
        path = folder / f"round-{number // len(samples):03d}" / sample.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_another_file(sample.read_bytes(), number))
        files.append(path)
    return files


def sample_campaign(folder: Path, images: Path, device: str = "auto") -> Path:
    """Write a campaign with the bundled models, all else as by default."""
    return write_campaign(folder, images, classes=sample_classes(), models={"device": device})


def draw_pictures(folder: Path, count: int) -> None:
    """Write `count` JPEG files of 160 x 120 pixels, dark with a few bright rectangles, into subfolders."""
    drawn = [_picture(seed) for seed in range(min(DISTINCT, count))]
    for number in range(count):
        path = folder / f"{number // PER_FOLDER:04d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn[number % len(drawn)])


def _picture(seed: int) -> bytes:
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (120, 160, 3), dtype=np.uint8)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.integers(0, 120), rng.integers(0, 80)
        width, height = rng.integers(16, 40, 2)
        pixels[y : y + height, x : x + width] = rng.integers(150, 255, 3, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def run_bare(campaign: Path) -> RunSummary:
    """Plan, process every shard, export and sum up in a plain loop."""
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.run import CampaignRun, Processed
    from vouch_labels.tasks.shard.shard import process_shard

    with CampaignRun(load_campaign(campaign)) as run:
        run.plan()
        worked, began = Processed(), time.perf_counter()
        for shard in run.pending():
            worked.images += process_shard(shard.id, run.settings).counts.images
            worked.shards += 1
        worked.seconds = time.perf_counter() - began
        return run.summary(worked, run.export())


def run_flow(campaign: Path, prefect_home: Path) -> RunSummary:
    """Run the campaign as `vouch run` does, with an embedded server whose database lies in a folder of its own."""
    from vouch_labels.flows.prefect_server import prepare_environment

    prepare_environment()
    os.environ["PREFECT_HOME"] = str(prefect_home)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        os.environ.pop(name, None)
    from vouch_labels.flows.run import run_campaign

    return run_campaign(campaign)


@contextmanager
def filled_bucket(endpoint: str, objects: int) -> Iterator[str]:
    """Make a bucket, and delete it when the block ends; processes of their own do both.

    Args:
        endpoint: Address of the server; credentials come from boto3's own chain.
        objects: Objects of one byte in it.

    Yields:
        Its s3:// uri.
    """
    bucket = f"vouch-bench-{uuid.uuid4().hex[:12]}"
    try:
        in_child(_fill, endpoint=endpoint, bucket=bucket, objects=objects)
        yield f"s3://{bucket}"
    finally:
        in_child(_remove, endpoint=endpoint, bucket=bucket)


def client_of(endpoint: str) -> "S3Client":
    """A client of a server, with as many connections as THREADS."""
    import boto3
    from botocore.config import Config

    config = Config(
        max_pool_connections=THREADS,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", endpoint_url=endpoint, config=config)


def _fill(endpoint: str, bucket: str, objects: int) -> int:
    client = client_of(endpoint)
    client.create_bucket(Bucket=bucket)

    def put(number: int) -> None:
        client.put_object(Bucket=bucket, Key=f"{number // PER_PAGE:04d}/{number:09d}.jpg", Body=b"x")

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(1 for _ in pool.map(put, range(objects)))


def _remove(endpoint: str, bucket: str) -> int:
    client = client_of(endpoint)
    removed = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})  # type: ignore[typeddict-item] # the stub wants its own dict type
            removed += len(keys)
    client.delete_bucket(Bucket=bucket)
    return removed


class Options(Strict):
    """How much is measured."""

    quick: bool = Field(False, description="Small sizes and one repetition: shows that everything works, no more.")
    huge: bool = Field(False, description="Adds the sizes that take many minutes.")
    full: bool = Field(False, description="Adds full-size models on machines without a GPU, and more signals.")
