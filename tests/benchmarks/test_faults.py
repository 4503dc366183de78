"""The proxy that fails as it is told, stores that come through it, and small measurements of every fault."""

import os
import random
from pathlib import Path

import pytest

from benchmarks.fault_runs import KINDS, ON_ANY, ON_READS, FaultyProxy, moment
from benchmarks.faults import Counts, Journal, Record, bucket_faults, local_faults, prefect_api
from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import StoreError
from vouch_labels.tasks.store import s3
from vouch_labels.tasks.store.s3 import S3Store

SMALL = Counts(kills=2, terms=1, interrupts=1, levels=2, images=12, delay_s=0.01)
CONTENT = bytes(range(256)) * 40


def store_behind(proxy: FaultyProxy, bucket: str, **options: object) -> S3Store:
    given = {"endpoint_url": proxy.endpoint, "path_style": True, "checksums": "when_required", "max_attempts": 8}
    return S3Store(bucket, "p", S3Options.model_validate(given | options))


@pytest.fixture
def bucket(moto_endpoint: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(s3, "BROKEN_OFF_WAIT_S", 0.001)
    monkeypatch.setattr(s3, "_has_md5_tags", {})
    name = f"faults-{os.urandom(4).hex()}"
    with FaultyProxy(moto_endpoint, 0) as proxy:
        store = store_behind(proxy, name)
        store.client.create_bucket(Bucket=name)
        store.put("x", CONTENT)
    return name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_spoilt_now_and_then_comes_whole_in_the_end(moto_endpoint: str, bucket: str, kind: str) -> None:
    with FaultyProxy(moto_endpoint, 0.4, kinds=(kind,), delay_s=0.01, seed=3) as proxy:
        store = store_behind(proxy, bucket)
        for number in range(4):
            assert store.put(f"{number}", CONTENT, if_absent=True)
            assert store.get(f"{number}").data == CONTENT
            if kind != "wrong ETag":
                assert store.get("x").etag == store.stat("x").etag
        assert [info.key for info in store.list()] == ["0", "1", "2", "3", "x"]
    assert proxy.spoilt[kind] > 0
    assert set(proxy.spoilt) == {kind}


@pytest.mark.parametrize("kind", [kind for kind in (*ON_ANY, *ON_READS) if kind not in ("delay", "wrong ETag")])
def test_what_is_always_spoilt_is_told(moto_endpoint: str, bucket: str, kind: str) -> None:
    with FaultyProxy(moto_endpoint, 0) as proxy:
        store = store_behind(proxy, bucket, max_attempts=2)
        store.get("x")  # so that this store is known to have MD5s as ETags
        proxy.rate, proxy.kinds = 1, (kind,)
        with pytest.raises(StoreError):
            store.get("x")


def test_a_stale_listing_is_that_of_the_time_before(moto_endpoint: str, bucket: str) -> None:
    with FaultyProxy(moto_endpoint, 0) as proxy:
        proxy.stale = True
        store = store_behind(proxy, bucket)
        assert [info.key for info in store.list()] == ["x"]
        store.put("y", b"")
        assert [info.key for info in store.list()] == ["x"]
        assert [info.key for info in store.list()] == ["x", "y"]


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path) -> None:
    record = Record(fault="kill -9", times=1, as_said=1, free=1, orphans=0, same=True, runs=2)
    assert Journal(tmp_path / "kept" / "journal").get("kill -9 0 to 1", lambda: record) == record
    again = Journal(tmp_path / "kept" / "journal")
    assert again.get("kill -9 0 to 1", lambda: pytest.fail("it was measured before")) == record


def test_moments_lie_within_a_phase() -> None:
    taken = {"": 1.0, "starting": 3.0, "planned": 0.5, "labelling": 4.0, "exporting annotations": 2.0}
    chance = random.Random(1)
    moments = [moment(chance, taken, done=False) for _ in range(400)]
    assert all(0 <= after_s <= taken[phase] for phase, after_s in moments)
    assert {phase for phase, _ in moments} == set(taken)
    late = {moment(chance, taken, done=True)[0] for _ in range(400)}
    assert late == {"", "starting", "exporting annotations"}


def sound(record: Record) -> bool:
    return record.same and record.orphans == 0 and record.as_said == record.free == record.times


@pytest.mark.slow
def test_signals_and_full_disks_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "")  # so that it is as before in the end
    with prefect_api(tmp_path / "server") as api:
        records = list(local_faults(tmp_path, SMALL, Journal(tmp_path / "journal"), api))
    assert [record.fault for record in records[:3]] == ["kill -9", "SIGTERM", "SIGINT"]
    assert len(records) == 3 + SMALL.levels
    assert [record for record in records if not sound(record)] == []


@pytest.mark.slow
@pytest.mark.usefixtures("credentials")
def test_bad_stores_cost_nothing(tmp_path: Path, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "")  # as above
    with prefect_api(tmp_path / "server") as api:
        records = list(bucket_faults(tmp_path, SMALL, Journal(tmp_path / "journal"), api, moto_endpoint))
    assert [record for record in records if not sound(record)] == []
    assert all(record.spoilt for record in records if "spoilt" in record.fault)
