"""Resolves a checkpoint reference (name, path, s3:// or hf://) to a verified local file.

Published checkpoints are pinned by SHA-256; a file's digest is computed once as long as the file stays the same.
Objects of a bucket are cached by their ETag, files of the model hub in the hub client's own cache. The tokenizer folder
that belongs to a GroundingDINO checkpoint is found beside it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vouch_labels.schemas.campaign import Checkpoint, S3Options, nearest
from vouch_labels.schemas.errors import CheckpointError, StoreAccessError, StoreError, VouchError
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.store.local import LocalStore

STARTER = Path(__file__).resolve().parents[2] / "starter" / "weights"
"""The bundled models: <kind>.safetensors, <kind>.json (architecture), tokenizer/, checksums.json."""

Kind = Literal["detector", "segmenter", "scorer"]

PUBLISHED: Final = "bert-base-uncased"
"""What the official checkpoints were trained with."""

_WEIGHTS: Final = (".pt", ".pth", ".bin", ".safetensors")
_WHERE = "models.detector.text_encoder"
_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A verified checkpoint file."""

    path: Path
    sha256: str
    """Hex, of the file's bytes."""
    architecture: str | Path | None
    """Name of a built-in architecture, a JSON file that describes one, or None where nothing says."""
    source: str
    """The reference that led here, fit for messages and records."""


def resolve(config: Checkpoint, kind: Kind, *, download: bool = True) -> Weights:
    """Find, fetch if need be, and verify the file that a config's checkpoint names.

    'starter' is the bundled file; a name of `OFFICIAL` is looked for in <cache>/checkpoints/<file name> (put there by
    hand on machines without the hub) and then in the hub's cache; hf://, s3:// and paths speak for themselves. The
    SHA-256 is always computed; it must equal the config's, or else the one that is known for the name. A file that is
    an official one under another name brings its architecture along.

    Raises:
        CheckpointError: The reference is not understood, or the file is missing, unreachable or not the pinned one;
            without `download` also one that is not on this machine yet.
        VouchError: The cache cannot be written.
    """
    where = f"models.{kind}.checkpoint"
    architecture = _chosen(config, kind)
    known: str | None = None
    if config.checkpoint == "starter":
        path, known = _starter(kind, where)
        architecture = architecture or path.with_suffix(".json")
    elif config.checkpoint in OFFICIAL:
        known = OFFICIAL[config.checkpoint].sha256
        _check_kind(config.checkpoint, kind, where)
        uri = OFFICIAL[config.checkpoint].uri
        by_hand = cache_folder() / "checkpoints" / Path(uri).name
        path = by_hand if by_hand.is_file() else fetch(uri, where, download=download)
    elif "://" in config.checkpoint or Path(config.checkpoint).expanduser().exists():
        path = fetch(config.checkpoint, where, download=download)
    else:
        raise CheckpointError(f"{where}: no file {config.checkpoint}; {_suggestion(config.checkpoint, kind)}")
    actual, expected = sha256_of(path), config.sha256 or known
    if expected is not None and actual != expected:
        raise CheckpointError(
            f"{where}: {path} has SHA-256 {actual}, not {expected}; "
            "the file is damaged or another one: fetch it again, or correct the sha256"
        )
    same = (one.architecture for one in OFFICIAL.values() if (one.kind, one.sha256) == (kind, actual))
    return Weights(path, actual, architecture or next(same, None), config.checkpoint)


def check_there(config: Checkpoint, kind: Kind) -> None:
    """Refuse a checkpoint that is a missing file, or of another kind, at once: nothing is read, hashed or fetched.

    Raises:
        CheckpointError: As `resolve`, as far as that can be told.
    """
    where = f"models.{kind}.checkpoint"
    _chosen(config, kind)
    if config.checkpoint == "starter":
        _starter(kind, where)
    elif config.checkpoint in OFFICIAL:
        _check_kind(config.checkpoint, kind, where)
    elif "://" not in config.checkpoint:
        path = Path(config.checkpoint).expanduser()
        if path.exists():
            fetch(config.checkpoint, where)
        # A scorer's may be open_clip's architecture/tag, which no file has to be.
        elif kind != "scorer" or path.is_absolute() or path.suffix in _WEIGHTS or "/" not in config.checkpoint:
            raise CheckpointError(f"{where}: no file {config.checkpoint}; {_suggestion(config.checkpoint, kind)}")


def _check_kind(name: str, kind: Kind, where: str) -> None:
    if OFFICIAL[name].kind != kind:
        raise CheckpointError(f"{where}: {name} is a {OFFICIAL[name].kind}; use one of {', '.join(names_of(kind))}")


def _chosen(config: Checkpoint, kind: Kind) -> str | Path | None:
    """The architecture that the config names: a JSON file, or a built-in name for the backend to check."""
    if config.architecture is None or not config.architecture.endswith(".json"):
        return config.architecture
    path = Path(config.architecture).expanduser()
    if not path.is_file():
        raise CheckpointError(f"models.{kind}.architecture: no file {config.architecture}; check the path")
    return path


def _starter(kind: Kind, where: str) -> tuple[Path, str]:
    path = STARTER / f"{kind}.safetensors"
    checksums = STARTER / "checksums.json"
    try:
        pin = str(json.loads(checksums.read_text(encoding="utf-8"))[path.name])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where}: {checksums} does not pin {path.name}; install again") from error
    if not path.is_file():
        raise CheckpointError(f"{where}: the bundled model {path} is missing; install again")
    return path, pin


def names_of(kind: Kind) -> list[str]:
    """What `checkpoint` may be by name for a kind of model."""
    return ["starter", *(name for name, official in OFFICIAL.items() if official.kind == kind)]


def _suggestion(reference: str, kind: Kind) -> str:
    names = names_of(kind)
    near = nearest(reference, names)
    return f"did you mean {near}?" if near else f"give a path that exists, or one of {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class Official:
    """One published file."""

    kind: Kind
    architecture: str
    """Name of a built-in architecture of the backend that reads it."""
    uri: str
    """On the model hub, at a commit, or at a branch where the SHA-256 alone pins it; ends in its published name."""
    sha256: str
    size: int
    """Bytes."""


OFFICIAL: Final[dict[str, Official]] = {
    "groundingdino_swint_ogc": Official(
        kind="detector",
        architecture="swin_t",
        uri="hf://ShilongLiu/GroundingDINO@a94c9b567a2a374598f05c584e96798a170c56fb/groundingdino_swint_ogc.pth",
        sha256="3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
        size=693_997_677,
    ),
    "groundingdino_swinb_cogcoor": Official(
        kind="detector",
        architecture="swin_b",
        uri="hf://ShilongLiu/GroundingDINO@a94c9b567a2a374598f05c584e96798a170c56fb/groundingdino_swinb_cogcoor.pth",
        sha256="46270f7a822e6906b655b729c90613e48929d0f2bb8b9b76fd10a856f3ac6ab7",
        size=938_057_991,
    ),
    "sam_vit_b": Official(
        kind="segmenter",
        architecture="vit_b",
        uri="hf://ybelkada/segment-anything@main/checkpoints/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
    ),
    "sam_vit_l": Official(
        kind="segmenter",
        architecture="vit_l",
        uri="hf://ybelkada/segment-anything@main/checkpoints/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size=1_249_524_607,
    ),
    "sam_vit_h": Official(
        kind="segmenter",
        architecture="vit_h",
        uri="hf://ybelkada/segment-anything@main/checkpoints/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
    ),
}
"""Name -> file, as `models.<kind>.checkpoint` and `vouch models list` know it."""


def fetch(uri: str, where: str, *, download: bool = True) -> Path:
    """The file on this machine that a path, s3://bucket/key or hf://owner/repo[@revision]/file stands for.

    `where` is what asked for it, for messages ("models.detector.checkpoint"). The hub client's offline switch is
    honoured.

    Raises:
        CheckpointError: The uri is not understood; the file does not exist, is closed to this user, or is not here and
            cannot be fetched now.
        VouchError: The cache cannot be written.
    """
    scheme, separator, _ = uri.partition("://")
    if scheme == "s3" and separator:
        return _from_bucket(uri, where, download)
    if scheme == "hf" and separator:
        repository, revision, inside = _split(uri, where)
        if not inside:
            raise CheckpointError(f"{where}: {uri} names no file; write hf://owner/repo[@revision]/file")
        return _from_hub(repository, revision, where, file=inside, download=download)
    if separator:
        raise CheckpointError(
            f"{where}: {scheme}:// is not understood; use a path, s3://bucket/key or hf://owner/repo/file"
        )
    path = Path(uri).expanduser()
    if path.is_dir():
        raise CheckpointError(f"{where}: {uri} is a folder; name the file in it")
    if not path.is_file():
        raise CheckpointError(f"{where}: no file {uri}; check the path")
    return path


def fetch_folder(uri: str, patterns: Sequence[str], where: str) -> Path:
    """Folder on this machine with the files of a repository, hf://owner/repo[@revision], that match a pattern.

    Raises:
        CheckpointError: The uri names a file, or as `fetch`.
        VouchError: As `fetch`.
    """
    repository, revision, inside = _split(uri, where)
    if inside:
        raise CheckpointError(f"{where}: {uri} is one file and the backend needs all; write hf://owner/repo[@revision]")
    return _from_hub(repository, revision, where, patterns=patterns)


def _split(uri: str, where: str) -> tuple[str, str | None, str]:
    """Repository, revision and file ('' when none is named) of hf://owner/repo[@revision][/file]."""
    owner, _, rest = uri.removeprefix("hf://").partition("/")
    name, _, inside = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name:
        raise CheckpointError(f"{where}: {uri} is no hub reference; write hf://owner/repo[@revision]/file")
    return f"{owner}/{name}", revision or None, inside


def _from_hub(
    repository: str,
    revision: str | None,
    where: str,
    *,
    file: str = "",
    patterns: Sequence[str] = (),
    download: bool = True,
) -> Path:
    """One file of a repository, or else the folder of those that match the patterns, in the hub client's own cache."""
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    name = f"hf://{repository}{'@' + revision if revision else ''}{'/' + file if file else ''}"
    try:
        if file:
            return Path(hf_hub_download(repository, file, revision=revision, local_files_only=not download))
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{where}: {name} asks for accepted terms; accept them and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(f"{where}: {name}: no such repository, or it is private: set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{where}: {name}: no such revision; check the part after '@'") from error
    except errors.RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{where}: {name}: no such file in the repository; check its path") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{where}: {name} is no hub reference; write hf://owner/repo[@revision]/file") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        hint = "yet; fetch it with `vouch models pull`, or give a local path"
        if download:
            hint = "and the hub cannot be reached; give the path of a local copy"
        raise CheckpointError(f"{where}: {name} is not on this machine {hint}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise CheckpointError(f"{where}: {name}: the hub answered {status}; try again or use a local path") from error
    except OSError as error:
        raise VouchError(f"{where}: cannot keep {name}: {error.strerror or error}; make room or set HF_HOME") from error


def _from_bucket(uri: str, where: str, download: bool) -> Path:
    """The local copy of an object, which is asked for its ETag each time and fetched again when that has changed.

    Credentials, region and endpoint come from boto3's own chain (AWS_ENDPOINT_URL for S3-compatible stores).
    """
    from vouch_labels.tasks.store.s3 import S3Store, s3_errors

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise CheckpointError(f"{where}: {uri} names no file; write s3://bucket/key")
    store = S3Store(bucket, "", S3Options())
    with _bucket_errors(where):
        found = store.stat(key)
        endpoint = store.client.meta.endpoint_url
    if found is None:
        raise CheckpointError(f"{where}: {uri}: no such object; check bucket and key")
    target = cache_folder() / "s3" / fingerprint(endpoint, bucket, key, f'"{found.etag}"') / Path(key).name
    if target.is_file():
        return target
    if not download:
        raise CheckpointError(f"{where}: {uri} is not on this machine yet; run `vouch models pull`")
    try:
        with (
            LocalStore(target.parent).open_writer(target.name) as file,
            _bucket_errors(where),
            s3_errors(f"read {uri}", permission="s3:GetObject", key=key),
        ):
            store.client.download_fileobj(bucket, key, file)
    except (StoreError, StoreAccessError) as error:
        raise VouchError(f"{where}: {error}; free space or set VOUCH_CACHE") from error
    return target


@contextmanager
def _bucket_errors(where: str) -> Iterator[None]:
    """Add what asked, and that no campaign's s3 options apply here."""
    try:
        yield
    except (StoreError, StoreAccessError) as error:
        raise CheckpointError(f"{where}: {error} (for checkpoints: AWS_ENDPOINT_URL, AWS_DEFAULT_REGION)") from error


def sha256_of(path: Path) -> str:
    """Hex of SHA-256 over an existing file's bytes.

    The answer is remembered in the cache folder under the file's full path, size and modification time, so that a
    nightly run does not read gigabytes again. A cache that cannot be written only costs time.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        path = path.resolve()
        stat = path.stat()
        now = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        note = cache_folder() / "sha256" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text(encoding="utf-8"))
            if {name: known[name] for name in now} == now:
                return str(known["sha256"])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}; check its rights") from error
    with suppress(VouchError):
        LocalStore(note.parent).put(note.name, json.dumps({**now, "sha256": digest}).encode())
    return digest


def cache_folder() -> Path:
    """VOUCH_CACHE where it is set, else vouch in XDG_CACHE_HOME (~/.cache); not made here."""
    chosen = os.environ.get("VOUCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "vouch"


def tokenizer_folder(text_encoder: str | None, weights: Weights) -> Path:
    """Folder of a checkpoint's tokenizer.

    `text_encoder` is a folder, or a name on the hub. None: a folder `tokenizer` beside the checkpoint where there is
    one (the bundled model has), else bert-base-uncased. Names are looked for in <cache>/tokenizers/<name> (put there by
    hand on machines without the hub), then in the hub's cache, then on the hub.

    Raises:
        CheckpointError: It is not on this machine and cannot be fetched.
    """
    beside = weights.path.parent / "tokenizer"
    if text_encoder is None and _is_tokenizer(beside):
        return beside
    name = text_encoder or PUBLISHED
    for folder in (Path(name).expanduser(), cache_folder() / "tokenizers" / name):
        if _is_tokenizer(folder):
            return folder
    if Path(name).expanduser().is_dir():
        raise CheckpointError(f"{_WHERE}: {name} holds no tokenizer.json or vocab.txt")
    folder = _from_hub(name, None, _WHERE, patterns=_FILES)
    if not _is_tokenizer(folder):
        raise CheckpointError(f"{_WHERE}: {name} on the hub holds no tokenizer; give a folder that does")
    return folder


def _is_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file()
