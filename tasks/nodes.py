"""What runs on the nodes of a Ray cluster: the connection to them, what a worker takes of one, and the worker itself.

The worker loads the models once, says what they are, and processes shards; it knows nothing of Ray.
"""

import contextlib
import json
import logging
import os
import platform
import queue
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from vouch_labels.schemas.campaign import NO_CLIENT, Campaign, Location, RunConfig, Source
from vouch_labels.schemas.errors import ObjectMissingError, StoreAccessError, UserError, VouchError
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.models.runtime import choose_runtime, light_runtime
from vouch_labels.tasks.shard.events import Event, Progress
from vouch_labels.tasks.shard.pipeline import code_digest, load_pipeline, recipe_of
from vouch_labels.tasks.shard.shard import ShardSettings, process_shard
from vouch_labels.tasks.store.lock import LockRecord, ProcessId, is_alive, lock_key, this_process
from vouch_labels.tasks.store.open import check_readable, open_store
from vouch_labels.tasks.store.source import open_source
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

EVERY_S: Final = 0.5
"""Seconds between two reports of progress."""
PACKAGES: Final = (
    *("torch", "torchvision", "numpy", "pillow", "pyarrow", "transformers", "tokenizers", "open-clip-torch"),
    *("groundingdino-py", "segment-anything", "safetensors", "pycocotools", "scipy", "pillow-heif"),
)
"""Packages that results could depend on."""
PASSED_ON: Final = (
    *("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM", "GOMP_SPINCOUNT", "PYTHONUTF8"),
)
"""Variables that a worker takes from the run where its node does not set them."""
CPUS: Final = 4
"""Cores of a worker where nothing else is said."""
REACH_S: Final = 10.0
"""Seconds within which the head of a cluster must accept a connection."""
OBJECT_STORE: Final = 80 << 20
"""Bytes of a local cluster's object store, about the least that Ray takes: what travels is small and not kept there.
Where /dev/shm has less, Ray keeps it below the folder for temporary files."""
HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of HTTP/2 begins: its preface, and an empty frame of settings."""
SETTINGS: Final = b"\x04"
"""Type of such a frame, its fourth byte."""
TOKEN_FILE: Final = Path("~/.ray/auth_token")
"""Where Ray keeps a token that no variable gives."""
STARTS: Final = 3
"""Times that a local cluster is started: Ray gives up after half a minute, which a busy machine may well take."""
TEMPORARY: Final = "vouch-ray-"
"""How the names of local clusters' folders begin."""
OWNER: Final = "owner.json"
"""File in one that names the process which the cluster ends with."""
LONGEST_TEMPORARY: Final = 24
"""Letters of a folder for temporary files below which the path of Ray's longest socket has the 107 that are allowed."""


class Size(NamedTuple):
    """What one worker takes of a cluster."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        """As in: 4 CPUs and 0.5 GPU."""
        return f"{plural(self.cpus, 'CPU')}{f' and {self.gpus:g} GPU' if self.gpus else ''}"

    def fitting(self, resources: dict[str, float]) -> int:
        """How many workers a node has room for."""
        by_cpus = resources.get("CPU", 0) // self.cpus
        # GPUs are shared in parts that a float does not hold exactly.
        return int(min(by_cpus, resources.get("GPU", 0) / self.gpus + 1e-6) if self.gpus else by_cpus)


def size_of_worker(campaign: Campaign) -> Size:
    """What a worker of a campaign takes; on a local machine as much as there is for each.

    Raises:
        UserError: See `gpus_of_worker`.
    """
    run, gpus = campaign.run, gpus_of_worker(campaign)
    if run.cpus_per_worker != "auto":
        return Size(run.cpus_per_worker, gpus)
    if run.ray.address != "local":
        return Size(CPUS, gpus)
    workers = 1 if run.workers == "auto" else run.workers
    return Size(max(1, min(CPUS, _cores() // workers)), gpus)


def gpus_of_worker(campaign: Campaign) -> float:
    """How much of a GPU each worker of a campaign has.

    Raises:
        UserError: The device that the campaign names cannot be one of a worker.
    """
    run, device = campaign.run, campaign.models.device
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"models.device: {device}: Ray says which GPU a worker has; use auto, cuda or cpu")
    if run.gpus_per_worker != "auto":
        if device != "auto" and (device == "cuda") != (run.gpus_per_worker > 0):
            raise UserError(
                f"run.gpus_per_worker: is {run.gpus_per_worker:g}, and models.device {device}; make one auto"
            )
        return run.gpus_per_worker
    if device == "auto" and run.ray.address == "local":
        return float(light_runtime(campaign.models).device.startswith("cuda"))
    return float(device != "cpu")


class Connection:
    """A connection to a cluster; use it in a with block. What was started here ends with the block."""

    def __init__(self, config: RunConfig, size: Size) -> None:
        """Prepare; Ray is imported when the block is entered."""
        self._config, self._size = config, size
        self._temporary = ""
        self._is_ours = False

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            UserError: Ray is not installed, or no cluster that takes us answers.
            VouchError: Ray does not start on this machine.
        """
        # What Ray reads when it is imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # devices are named, not hidden
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # it writes past any redirection
        if self._config.ray.address == "local" and "ray" not in sys.modules:
            # Else Ray would write one into the user's home folder.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        if _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # else it shows no token at another machine's address
        try:
            import ray
        except ImportError:
            raise UserError("run.runner: Ray is not installed; pip install 'vouch-labels[ray]', or use local") from None
        if not ray.is_initialized():  # else whoever connected also disconnects
            try:
                self._connect()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect, and end a cluster that was started here."""
        self._close()

    def _connect(self) -> None:
        import ray

        self._is_ours = True
        address = self._config.ray.address
        quiet = {"logging_level": logging.ERROR, "configure_logging": False}
        if address == "local":
            folder = tempfile.gettempdir()
            folder = folder if len(folder) <= LONGEST_TEMPORARY else "/tmp"  # noqa: S108 - mkdtemp makes ours in it
            _remove_left(Path(folder))
            self._temporary = tempfile.mkdtemp(prefix=TEMPORARY, dir=folder)
            (Path(self._temporary) / OWNER).write_text(json.dumps(this_process()), encoding="utf-8")
            workers = 1 if self._config.workers == "auto" else self._config.workers
            for left in reversed(range(STARTS)):
                try:
                    ray.init(
                        address="local", num_cpus=max(_cores(), workers * self._size.cpus), include_dashboard=False,
                        object_store_memory=OBJECT_STORE, _node_ip_address="127.0.0.1", _temp_dir=self._temporary,
                        _plasma_directory=None if _has_shared_memory() else self._temporary, **quiet,
                    )  # fmt: skip
                    break
                except Exception as error:  # Ray has no class for it
                    ray.shutdown()
                    if not left:
                        raise VouchError(
                            f"Ray did not start on this machine ({one_line(error)}); try again when it is less busy, "
                            "or use run.runner local"
                        ) from error
            return
        named = os.environ.get("RAY_ADDRESS", "").replace("auto", "") if address == "auto" else address
        where = f"run.ray.address: {address}" + (f" (RAY_ADDRESS {named})" if named not in ("", address) else "")
        if named.startswith("ray://"):
            raise UserError(f"{where}: {NO_CLIENT}")
        if named:
            _reach(named, where)
        if not _has_token() and os.environ.get("RAY_AUTH_MODE", "token") == "token":
            # Ray would try for minutes, without a word of tokens.
            raise UserError(
                f"{where}: no token is set; export RAY_AUTH_TOKEN as on the cluster's nodes, or "
                "RAY_AUTH_MODE=disabled if they ask for none"
            )
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            if "any running Ray" in str(error):
                raise UserError(
                    f"{where}: this machine is no node of a cluster; join one by `ray start`, or use local"
                ) from error
            raise UserError(
                f"{where}: the cluster does not let us in; give RAY_AUTH_TOKEN its token, as on its nodes, and see "
                "that all have the same Ray"
            ) from error
        except (RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(f"{where}: {one_line(error)}") from error

    def _close(self) -> None:
        if self._is_ours:
            import ray

            ray.shutdown()
            self._is_ours = False
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = ""

    def room(self) -> int:
        """How many workers the cluster has room for now, busy or not."""
        return sum(map(self._size.fitting, self._nodes()))

    def lacks(self) -> str:
        """What the cluster has, where it has no room."""
        nodes = self._nodes()
        cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
        has = f"{plural(int(cpus), 'CPU')} and {plural(int(gpus), 'GPU')} on {plural(len(nodes), 'node')}"
        return f"a worker takes {self._size}, and the cluster has {has}"

    @staticmethod
    def _nodes() -> list[dict[str, float]]:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remove_left(folder: Path) -> None:
    """Remove what local clusters left whose runs were killed."""
    for left in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            owner = ProcessId(*json.loads((left / OWNER).read_text(encoding="utf-8")))
            if is_alive(owner) is False:
                shutil.rmtree(left, ignore_errors=True)


def _has_shared_memory() -> bool:
    try:
        return shutil.disk_usage("/dev/shm").free > OBJECT_STORE  # noqa: S108 - only looked at
    except OSError:
        return False


def _has_token() -> bool:
    return bool({"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()) or TOKEN_FILE.expanduser().is_file()


def _reach(address: str, where: str) -> None:
    """Make sure that a server as Ray's answers at HOST:PORT: Ray itself tries for many minutes.

    Such a server speaks first, by the settings of HTTP/2.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACH_S) as connection:
            connection.sendall(HTTP2)
            answer = connection.recv(9)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: no cluster answers ({one_line(error)}); start its head, or correct the address"
        ) from error
    if answer[3:4] != SETTINGS and "RAY_USE_TLS" not in os.environ:
        raise UserError(f"{where}: what answers is no Ray head; its port is 6379, unless `ray start` was told another")


@dataclass(frozen=True)
class Start:
    """What a worker is started with, and what it must find where it runs."""

    settings: ShardSettings
    """The campaign as it is, with the device that the user asked for."""
    device: str
    """cpu or cuda: what the worker computes on."""
    holder: str
    """Token of the lock that the run holds on the workspace."""
    first_key: str
    """An image that the run's own process sees in the source; empty: none is looked for."""
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    """Of the run's own process, see `versions`."""
    environment: Mapping[str, str] = field(
        default_factory=lambda: {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    )

    @property
    def own_settings(self) -> ShardSettings:
        """The settings of the worker: results depend on the device's kind and precision, never on its name."""
        campaign = self.settings.campaign
        models = campaign.models.model_copy(update={"device": self.device})
        return ShardSettings(campaign.model_copy(update={"models": models}), self.settings.policy)


class Description(NamedTuple):
    """What a worker computes, once its models are loaded."""

    stages: dict[str, str]
    """Stage -> key of all that its table depends on."""
    inputs: dict[str, str]
    """What labels depend on, by names that users know."""
    recipe: str
    """See `recipe_of`."""


class Refusal(NamedTuple):
    """Why a worker cannot take part, in words for the user."""

    reason: str


class Answer(NamedTuple):
    """What became of a shard."""

    images: int = 0
    error: str = ""
    """Why it could not be finished; empty: it is done."""
    is_users: bool = False
    """Whether the error is one of the set-up, that no other shard would escape."""


def versions() -> dict[str, str]:
    """Name -> version of what results could depend on, this process's; of wheels the public part."""
    found = {
        "Vouch": f"{_version('vouch-labels')} ({code_digest()[:8]})",
        "Python": platform.python_version().rpartition(".")[0],
    }
    return found | {name: _version(name).partition("+")[0] for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


class Worker:
    """Processes shards in one process with one set of models."""

    def __init__(self, start: Start) -> None:
        """Take the settings; models are loaded by `ready`."""
        for name, value in start.environment.items():
            os.environ.setdefault(name, value)
        self._start = start
        self._settings = start.own_settings
        # One thread for all shards, so that this one can pass progress on meanwhile.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard")

    def place(self) -> str:
        """Name the process."""
        return f"process {os.getpid()} on {socket.gethostname()}"

    def ready(self) -> Description | Refusal:
        """Compare this node with the run's, see that it reaches source and workspace, and load the models."""
        try:
            reason = self._unlike() or self._blind()
            return Refusal(reason) if reason else self._thread.submit(self._load).result()
        except UserError as error:
            return Refusal(str(error))

    def process(self, shard: str) -> Iterator[Progress | Answer]:
        """Process a shard: how it goes on, now and then, and at last what became of it."""
        events = queue.SimpleQueue[Event | None]()
        work = self._thread.submit(self._process, shard, events)
        work.add_done_callback(lambda _: events.put(None))
        total, said = Progress(0, 0, 0, 0), time.monotonic()
        while (event := events.get()) is not None:
            if isinstance(event, Progress):
                total = total.plus(event)
            if time.monotonic() - said >= EVERY_S:
                yield total
                total, said = Progress(0, 0, 0, 0), time.monotonic()
        if total != Progress(0, 0, 0, 0):
            yield total
        yield work.result()

    def _process(self, shard: str, events: "queue.SimpleQueue[Event | None]") -> Answer:
        try:
            return Answer(process_shard(shard, self._settings, events.put).counts.images)
        except UserError as error:
            return Answer(error=str(error), is_users=True)
        except Exception as error:
            logger.exception("shard %s", shard)
            return Answer(error=" ".join(str(error).split()) or type(error).__name__)

    def _load(self) -> Description:
        campaign = self._start.settings.campaign
        pipeline = load_pipeline(self._settings.campaign, self._settings.imported)
        runtime = choose_runtime(self._settings.campaign.models)
        recipe = recipe_of(campaign, self._start.device, runtime.precision, self._settings.imported)
        return Description(pipeline.stages(self._settings.policy), pipeline.inputs, recipe)

    def _unlike(self) -> str:
        own = versions()
        wanted = self._start.versions.items()
        unlike = [f"{name} {own[name]} ({version} here)" for name, version in wanted if own[name] != version]
        return f"it has {', '.join(unlike)}; install the same on every node" if unlike else ""

    def _blind(self) -> str:
        """What of the run this node does not see; empty: nothing."""
        campaign = self._settings.campaign
        for name, place in (("source", campaign.source), ("workspace", campaign.workspace)):
            try:
                store: Store = (
                    open_source(place, campaign.workspace) if isinstance(place, Source) else open_store(place)
                )
                if name == "workspace":
                    record = LockRecord.model_validate_json(store.get(lock_key(campaign.run.name)).data)
                    if record.token != self._start.holder:
                        return f"the workspace {store.uri} that it sees is another one; {_advice(place)}"
                else:
                    check_readable(store)
                    if self._start.first_key and store.stat(self._start.first_key) is None:
                        return f"it does not see {store.uri}/{self._start.first_key}; {_advice(place)}"
            except StoreAccessError as error:
                return f"{name}: {error}; {_advice(place)}"
            except (ValueError, ObjectMissingError):
                return f"it does not see what this run has written to {place.uri}; {_advice(place)}"
        return ""


def _advice(place: Location) -> str:
    if "://" in place.uri:
        return "a node reads by its own credentials, those in the environment of its `ray start`"
    return "mount the folder at the same path on every node, or use a bucket"
