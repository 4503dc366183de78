"""The driver's rules, by real Ray on this machine and workers that fail as ordered."""

import logging
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster_workers import Obedient, orders
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.schemas.policy import Group, Policy
from vouch_labels.schemas.records import ShardRef
from vouch_labels.tasks.cluster import TOO_LONG, Cluster
from vouch_labels.tasks.nodes import Size, Start
from vouch_labels.tasks.shard.events import Progress, Workers
from vouch_labels.tasks.shard.shard import ShardSettings

pytestmark = pytest.mark.usefixtures("cluster")


POLICY = Policy(version="p", basis="user_thresholds", groups=(Group(name="cat", classes=("cat",)),))


class Events(list):
    """What was told, summed up."""

    def images(self) -> int:
        return sum(event.done for event in self if isinstance(event, Progress))

    def workers(self) -> Workers:
        return next(event for event in reversed(self) if isinstance(event, Workers))


@pytest.fixture
def work(tmp_path, make_campaign, monkeypatch):
    """Have shards processed as ordered; gives the attempts by shard, the driver, and what it told."""

    def run(shards=("a", "b", "c", "d", "e", "f"), workers=2, check=lambda: None, run=None, events=None, **files):
        monkeypatch.setattr("vouch_labels.tasks.cluster.TURN_S", 0.1)
        campaign = make_campaign(run={"runner": "ray", "workers": workers, "retry_delay_s": 0.05} | (run or {}))
        orders(campaign.workspace.uri, **files)
        start = Start(ShardSettings(campaign, POLICY), "cpu", "token", "")
        events = Events() if events is None else events
        with Cluster(start, Size(1, 0), events.append, Obedient) as driver:
            driver.describe()
            refs = (ShardRef(id=name, count=10, first_key=name) for name in shards)
            attempts = {attempt.shard: attempt for attempt in driver.work(refs, len(shards), check)}
        return attempts, driver, events

    return run


def log(tmp_path: Path) -> Counter[str]:
    """Shard -> how often it was given to a worker that lived to note it."""
    lines = (tmp_path / "workspace/orders/log").read_text().split("\n")
    return Counter(line.split()[0] for line in lines if line)


def test_every_shard_is_done_once(tmp_path, work):
    attempts, driver, events = work()
    assert {name: (one.images, one.error) for name, one in attempts.items()} == dict.fromkeys("abcdef", (10, ""))
    assert log(tmp_path) == Counter("abcdef")
    assert (events.images(), driver.lost, driver.retired) == (60, [], [])
    assert 1 <= driver.most <= 2


def test_shards_are_taken_from_the_plan_only_as_they_are_done(work):
    class Names(tuple):
        def __iter__(self):
            for name in super().__iter__():
                taken.append(name)
                yield name

    taken: list[str] = []
    at_each_turn = []
    events = Events()
    attempts, _, _ = work(
        Names(f"s{number}" for number in range(60)),
        workers=1,
        check=lambda: at_each_turn.append((len(taken), sum(isinstance(one, Progress) for one in events))),
        events=events,
    )
    assert len(attempts) == 60
    # Two reports a shard: beyond what is done there are two with the worker, and one in the driver's hand.
    assert max(count - reports // 2 for count, reports in at_each_turn) <= 3


def test_the_shards_of_a_worker_that_dies_are_given_to_another_and_its_progress_is_taken_back(tmp_path, work, caplog):
    attempts, driver, events = work(c="die once")
    assert all(one.error == "" for one in attempts.values())
    assert len(attempts) == 6
    assert events.images() == 60
    (lost,) = driver.lost
    assert "process" in lost
    assert "its process died" in lost
    assert events.workers().lost == 1
    assert [record.levelno for record in caplog.records if "is lost" in record.message] == [logging.WARNING]
    assert log(tmp_path)["c"] == 2


def test_a_shard_on_which_every_worker_dies_is_recorded_and_the_others_are_done(work):
    attempts, driver, events = work(c="die", run={"retries": 0})
    assert {name for name, one in attempts.items() if one.error} == {"c"}
    assert attempts["c"].error == "each of 4 workers that took it was lost, the last as its process died"
    assert len(driver.lost) == 4
    assert events.images() == 50


def test_a_shard_that_fails_is_tried_again(tmp_path, work):
    attempts, driver, events = work(b="fail once", e="fail", run={"retries": 1})
    assert {name: one.error for name, one in attempts.items() if one.error} == {"e": "the store is down"}
    assert log(tmp_path) == Counter("abcdef") + Counter("be")
    assert (events.images(), driver.lost) == (50, [])


def test_the_run_ends_where_nothing_works(work):
    names = [f"s{number}" for number in range(40)]
    attempts, _, events = work(names, run={"retries": 0}, **dict.fromkeys(names, "fail"))
    assert 3 <= len(attempts) <= 8
    assert events.images() == 0


def test_a_users_mistake_of_one_worker_is_the_nodes_and_of_two_the_runs(work):
    attempts, driver, _ = work(c="mine once")
    assert len(attempts) == 6
    (retired,) = driver.retired
    assert "no access" in retired
    with pytest.raises(UserError, match="no access; check the credentials"):
        work(c="mine")


def test_a_shard_that_takes_too_long_is_given_up_with_its_worker(work):
    attempts, driver, _ = work(("a", "b"), workers=1, a="wait", run={"retries": 0, "shard_timeout_s": 5})
    assert attempts["a"].error == TOO_LONG
    assert attempts["b"].error == ""
    assert len(driver.lost) == 1


def test_what_the_lock_says_ends_the_workers(work):
    def lost():
        raise VouchError("taken over")

    with pytest.raises(VouchError, match="taken over"):
        work(check=lost)
    until = time.monotonic() + 60
    while any(one["State"] != "DEAD" for one in _actors()) and time.monotonic() < until:
        time.sleep(0.1)
    assert all(one["State"] == "DEAD" for one in _actors())


def _actors():
    import ray

    return list(ray._private.state.actors().values())


def test_a_worker_whose_labels_would_differ_is_given_up(tmp_path, work, monkeypatch):
    def describe(self):
        description = plain(self)
        orders(self._start.settings.campaign.workspace.uri, start="differ")
        return description

    class UntilOneIsRetired(Events):
        def append(self, event):
            super().append(event)
            if isinstance(event, Workers) and event.retired:
                orders(str(tmp_path / "workspace"), go="")

    plain = Cluster.describe
    monkeypatch.setattr(Cluster, "describe", describe)
    attempts, driver, _ = work(a="hold", events=UntilOneIsRetired())
    assert len(attempts) == 6
    assert len(driver.retired) == 1
    assert "its labels would differ in detector weights; give all nodes" in driver.retired[0]


@pytest.mark.parametrize(
    ("order", "error", "words"),
    [
        ("refuse", UserError, "it has no models; copy them"),
        ("die", VouchError, "3 workers ended before they were ready, the last as its process died"),
        ("wait", VouchError, r"not ready within .* \(run.ray.worker_start_s\)"),
    ],
)
def test_workers_that_never_are_ready_end_the_run(work, order, error, words):
    with pytest.raises(error, match=words):
        work(start=order, run={"ray": {"worker_start_s": 1}} if order == "wait" else None)


def test_a_cluster_without_room_ends_the_run_with_what_it_lacks(make_campaign, monkeypatch):
    campaign = make_campaign(run={"runner": "ray", "ray": {"address": "auto", "nowhere_s": 0.5}})
    start = Start(ShardSettings(campaign, POLICY), "cuda", "token", "")
    words = "worker has found a place for .*takes 4 CPUs and 1 GPU, and the cluster has 8 CPUs and 0 GPUs on 1 node"
    with Cluster(start, Size(4, 1), lambda event: None, Obedient) as driver, pytest.raises(UserError, match=words):
        driver.describe()


def test_a_local_machine_without_gpus_is_refused_at_once(make_campaign):
    campaign = make_campaign(run={"runner": "ray", "gpus_per_worker": 0.5})
    start = Start(ShardSettings(campaign, POLICY), "cuda", "token", "")
    with pytest.raises(UserError, match=r"0 GPUs.*use 0 to label on the CPU"), Cluster(start, Size(1, 0.5), print):
        pass
