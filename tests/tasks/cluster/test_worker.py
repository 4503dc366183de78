"""What a worker says of its node, without Ray; and what is settled before there is one."""

import dataclasses
import json
import tempfile

import pytest

from vouch_labels.schemas.errors import CampaignError, UserError, VouchError
from vouch_labels.tasks import nodes
from vouch_labels.tasks.models.runtime import choose_runtime
from vouch_labels.tasks.nodes import (
    Answer,
    Connection,
    Description,
    Refusal,
    Size,
    Start,
    Worker,
    gpus_of_worker,
    size_of_worker,
    versions,
)
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.events import Progress
from vouch_labels.tasks.shard.pipeline import recipe_of
from vouch_labels.tasks.store.lock import this_process
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def start(tmp_path, make_images, make_campaign):
    """What a worker of a run that goes on is started with."""
    make_images(tmp_path / "images", 4)
    with CampaignRun(make_campaign()) as run:
        run.plan()
        yield Start(run.settings, "cpu", run._lock.token, "000.png")


def refusal(start, **changes):
    answer = Worker(dataclasses.replace(start, **changes)).ready()
    assert isinstance(answer, Refusal)
    assert "\n" not in answer.reason
    return answer.reason


def elsewhere(start, section, **changes):
    campaign = start.settings.campaign
    place = getattr(campaign, section).model_copy(update=changes)
    return dataclasses.replace(start.settings, campaign=campaign.model_copy(update={section: place}))


def test_a_worker_describes_itself_and_processes_shards(start):
    worker = Worker(start)
    described = worker.ready()
    assert isinstance(described, Description)
    assert set(described.stages) == {"images", "detect", "segment", "score", "presence", "route"}
    store = open_store(start.settings.campaign.workspace)
    (shard,) = {info.key.split("/")[-1].removesuffix(".parquet") for info in store.list("runs/main/plan/")
                if info.key.endswith(".parquet")}  # fmt: skip
    *progress, answer = worker.process(shard)
    assert answer == Answer(4)
    assert sum(event.done for event in progress if isinstance(event, Progress)) == 4
    *_, unknown = worker.process("no-such-shard")
    assert isinstance(unknown, Answer)
    assert unknown.error
    assert not unknown.is_users


def test_a_node_that_has_other_packages_is_refused_with_their_names(start):
    other = dict(versions()) | {"numpy": "1.0", "Vouch": "0.0.9 (abc)"}
    reason = refusal(start, versions=other)
    assert f"numpy {versions()['numpy']} (1.0 here)" in reason
    assert "(0.0.9 (abc) here)" in reason
    assert "torch" not in reason
    assert reason.endswith("install the same on every node")


def test_a_node_that_does_not_see_the_folders_is_refused(tmp_path, start):
    reason = refusal(start, settings=elsewhere(start, "workspace", uri=str(tmp_path / "nowhere")))
    assert reason.startswith("it does not see what this run has written to")
    assert reason.endswith("mount the folder at the same path on every node, or use a bucket")
    (tmp_path / "empty").mkdir()
    reason = refusal(start, settings=elsewhere(start, "source", uri=str(tmp_path / "empty")))
    assert "it does not see" in reason
    assert "000.png; mount the folder" in reason
    assert "mount the folder" in refusal(start, settings=elsewhere(start, "source", uri=str(tmp_path / "nowhere")))
    assert "is another one" in refusal(start, holder="of another run")


@pytest.mark.parametrize(
    ("device", "run", "gpus"),
    [
        ("auto", {}, 0.0),
        ("cpu", {"ray": {"address": "auto"}}, 0.0),
        ("auto", {"ray": {"address": "auto"}}, 1.0),
        ("cuda", {}, 1.0),
        ("auto", {"gpus_per_worker": 0.5}, 0.5),
        ("cuda", {"gpus_per_worker": 2}, 2.0),
    ],
)
def test_how_much_of_a_gpu_a_worker_has(make_campaign, monkeypatch, device, run, gpus):
    # As on a machine without a GPU, whichever this is.
    monkeypatch.setattr("vouch_labels.tasks.models.runtime._GPU_NODES", ())
    models = {kind: {"backend": "fake"} for kind in ("detector", "segmenter", "scorer")}
    campaign = make_campaign(models=models | {"device": device}, run={"runner": "ray"} | run)
    assert gpus_of_worker(campaign) == gpus


@pytest.mark.parametrize(
    ("device", "gpus", "words"),
    [("cuda:1", "auto", "Ray says which GPU"), ("cpu", 1, "make one auto"), ("cuda", 0, "make one auto")],
)
def test_devices_that_no_worker_can_have_are_refused(make_campaign, device, gpus, words):
    models = {kind: {"backend": "fake"} for kind in ("detector", "segmenter", "scorer")}
    campaign = make_campaign(models=models | {"device": device}, run={"runner": "ray", "gpus_per_worker": gpus})
    with pytest.raises(UserError, match=words):
        gpus_of_worker(campaign)


def test_cores_are_shared_out_on_a_local_machine(make_campaign, monkeypatch):
    monkeypatch.setattr("vouch_labels.tasks.nodes._cores", lambda: 6)

    def cpus(**run):
        return size_of_worker(make_campaign(run={"runner": "ray", "gpus_per_worker": 0} | run)).cpus

    assert [cpus(), cpus(workers=2), cpus(workers=6), cpus(workers=9)] == [4, 3, 1, 1]
    assert [cpus(cpus_per_worker=5, workers=2), cpus(ray={"address": "auto"}, workers=9)] == [5, 4]


def test_what_a_node_has_room_for():
    node = {"CPU": 16.0, "GPU": 2.0}
    assert [Size(4, 1).fitting(node), Size(4, 0.5).fitting(node), Size(1, 0.1).fitting(node)] == [2, 4, 16]
    assert [Size(3, 0).fitting(node), Size(4, 0.2).fitting({"GPU": 1.0}), Size(4, 2).fitting(node)] == [5, 0, 1]
    assert Size(1, 0.1).fitting({"CPU": 64.0, "GPU": 1.0}) == 10


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"runner": "ray", "ray": {"address": "ray://head:10001"}}, "carries no streams; run vouch on a node"),
        ({"runner": "ray", "ray": {"address": "head"}}, "must be local, auto or HOST:PORT"),
        ({"runner": "ray", "gpus_per_worker": 1.5}, "a part of one GPU, such as 0.5, or a whole number"),
        ({"runner": "dask"}, "runner"),
        ({"runner": "ray", "workers": 0}, "workers"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_line(make_campaign, run, words):
    with pytest.raises(CampaignError, match=words) as caught:
        make_campaign(run=run)
    assert "campaign.yaml:" in str(caught.value)


def connect(make_campaign, address):
    run = make_campaign(run={"runner": "ray", "ray": {"address": address}}).run
    with Connection(run, Size(1, 0)):
        pass


def test_without_ray_the_extra_is_named(make_campaign, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray is not installed; pip install 'vouch-labels\[ray\]', or use local"):
        connect(make_campaign, "local")


@pytest.mark.usefixtures("ray_installed")
def test_an_address_where_nothing_answers_is_refused_at_once(make_campaign, monkeypatch):
    with pytest.raises(UserError, match=r"127.0.0.1:1: no cluster answers .*start its head, or correct the address"):
        connect(make_campaign, "127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"auto \(RAY_ADDRESS 127.0.0.1:1\): no cluster answers"):
        connect(make_campaign, "auto")
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    with pytest.raises(UserError, match=r"carries no streams; run vouch on a node of the cluster"):
        connect(make_campaign, "auto")


@pytest.mark.usefixtures("ray_installed")
def test_an_address_where_something_else_answers_is_refused_at_once(make_campaign, moto_endpoint):
    with pytest.raises(UserError, match=r"what answers is no Ray head; its port is 6379, unless `ray start` was told"):
        connect(make_campaign, moto_endpoint.removeprefix("http://"))


@pytest.mark.usefixtures("ray_installed")
def test_without_a_token_a_cluster_is_not_asked(tmp_path, make_campaign, monkeypatch):
    import ray

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nodes, "TOKEN_FILE", tmp_path / "token")
    asked = []
    monkeypatch.setattr(ray, "init", lambda **words: asked.append(words["address"]))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="auto: no token is set; export RAY_AUTH_TOKEN as on the cluster's nodes"):
        connect(make_campaign, "auto")
    assert asked == []
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    connect(make_campaign, "auto")
    (tmp_path / "token").touch()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    connect(make_campaign, "auto")
    assert asked == ["auto", "auto"]


@pytest.mark.usefixtures("ray_installed")
def test_ray_is_started_again_where_the_machine_is_too_busy(tmp_path, make_campaign, monkeypatch):
    import ray

    def init(**_):
        tries.append(0)
        if len(tries) < enough:
            raise Exception("The current node timed out during startup.\nIt could be overloaded.")

    tries, enough = [], 3
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(nodes, "LONGEST_TEMPORARY", 1000)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    connect(make_campaign, "local")
    tries, enough = [], 4
    with pytest.raises(VouchError, match=r"\(The current node timed out during startup. It could .*; try again when"):
        connect(make_campaign, "local")
    assert len(tries) == 3
    assert not list(tmp_path.glob("vouch-ray-*"))


def test_the_longest_socket_of_ray_has_a_path_that_is_allowed():
    """108 bytes of `sockaddr_un.sun_path`, one of them its end; process ids have seven digits at most on Linux."""
    below = f"/{nodes.TEMPORARY}x1234567/session_2026-11-30_21-41-07_680924_4194304/sockets/plasma_store"
    assert nodes.LONGEST_TEMPORARY + len(below) <= 107


@pytest.mark.usefixtures("ray_installed")
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path, make_campaign, monkeypatch):
    import ray

    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(nodes, "LONGEST_TEMPORARY", 1000)
    own = this_process()
    owners = {"dead": own._replace(started="1"), "alive": own, "elsewhere": own._replace(place="x"), "damaged": 3}
    for name, owner in owners.items():
        (tmp_path / f"vouch-ray-{name}").mkdir()
        (tmp_path / f"vouch-ray-{name}" / "owner.json").write_text(json.dumps(owner))
    (tmp_path / "vouch-ray-new").mkdir()
    monkeypatch.setattr(ray, "init", lambda **words: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    connect(make_campaign, "local")
    names = {path.name.removeprefix("vouch-ray-") for path in tmp_path.glob("vouch-ray-*")}
    assert names == {"alive", "elsewhere", "damaged", "new"}


@pytest.mark.usefixtures("ray_installed")
@pytest.mark.parametrize(("free", "beside"), [(nodes.OBJECT_STORE, False), (nodes.OBJECT_STORE + 1, True)])
def test_where_shared_memory_is_short_ray_keeps_its_store_beside_its_logs(make_campaign, monkeypatch, free, beside):
    import shutil

    import ray

    asked = {}
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage if path == "/dev/shm" else None)
    monkeypatch.setattr(ray, "init", lambda **words: asked.update(words))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    connect(make_campaign, "local")
    assert asked["_plasma_directory"] == (None if beside else asked["_temp_dir"])


def test_a_worker_without_a_gpu_computes_on_the_cpu_though_it_sees_one(start, monkeypatch):
    import torch

    # Ray leaves CUDA_VISIBLE_DEVICES as it is for a worker that has no GPU.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    campaign = start.settings.campaign
    models = campaign.models.model_copy(update={"device": "auto"})
    asked = dataclasses.replace(start.settings, campaign=campaign.model_copy(update={"models": models}))
    assert choose_runtime(Start(asked, "cpu", "", "").own_settings.campaign.models).device == "cpu"
    described = Worker(dataclasses.replace(start, settings=asked)).ready()
    assert described.recipe == recipe_of(asked.campaign, "cpu", "fp32")


@pytest.mark.usefixtures("ray_installed")
def test_a_machine_that_is_no_node_is_told_to_join(make_campaign, monkeypatch):
    import ray

    def refuse(**_):
        raise ConnectionError(words)

    words = "Could not find any running Ray instance."

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="this machine is no node of a cluster; join one by `ray start`"):
        connect(make_campaign, "auto")
    monkeypatch.setattr(nodes, "_reach", lambda address, where: None)
    words = "Failed to connect to Ray cluster"
    with pytest.raises(UserError, match="head:6379: the cluster does not let us in; give RAY_AUTH_TOKEN its token"):
        connect(make_campaign, "head:6379")
