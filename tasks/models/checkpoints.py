"""Resolves a checkpoint reference (name, path, s3:// or hf://) to a verified local file.

Published checkpoints are pinned by SHA-256; a file's digest is computed once as long as the file stays the same.
Objects of a bucket are cached by their ETag, files of the model hub in the hub client's own cache. The tokenizer folder
that belongs to a GroundingDINO checkpoint is found beside it.
"""

import contextlib
import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from vouch_labels.schemas.campaign import Checkpoint
from vouch_labels.schemas.errors import CheckpointError, VouchError
from vouch_labels.tasks.fingerprint import fingerprint

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

STARTER = Path(__file__).resolve().parents[2] / "starter" / "weights"
"""The bundled models: <kind>.safetensors, <kind>.json (architecture), tokenizer/, checksums.json."""

Kind = Literal["detector", "segmenter", "scorer"]

_MISSING = "no such object; check bucket and key"
_REFUSED = "access is refused; check the credentials and the bucket's policy"

PUBLISHED: Final = "bert-base-uncased"
"""What the official checkpoints were trained with."""

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

    Args:
        config: The model's section of the campaign.
        kind: detector, segmenter or scorer.
        download: Whether to fetch what is not on this machine yet.

    Raises:
        CheckpointError: The reference is not understood, or the file is missing, unreachable or not the pinned one.
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
        path = _official(config.checkpoint, kind, where, download)
    else:
        path = file_of_reference(config.checkpoint, kind, where, download)
    actual, expected = sha256_of(path), config.sha256 or known
    if expected is not None and actual != expected:
        raise CheckpointError(
            f"{where}: {path} has SHA-256 {actual}, not {expected}; "
            "the file is damaged or another one: fetch it again, or correct the sha256"
        )
    return Weights(path, actual, architecture or _architecture_of(actual, kind), config.checkpoint)


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


def _official(name: str, kind: Kind, where: str, download: bool) -> Path:
    official = OFFICIAL[name]
    if official.kind != kind:
        raise CheckpointError(f"{where}: {name} is a {official.kind}; use one of {', '.join(names_of(kind))}")
    by_hand = cache_folder() / "checkpoints" / Path(official.path).name
    if by_hand.is_file():
        return by_hand
    return hub_file(official.repository, official.revision, official.path, where, download)


def _architecture_of(sha256: str, kind: Kind) -> str | None:
    def same(official: Official) -> bool:
        return official.kind == kind and official.sha256 == sha256

    return next((official.architecture for official in OFFICIAL.values() if same(official)), None)


def file_of_reference(reference: str, kind: Kind, where: str, download: bool) -> Path:
    """The file on this machine that a path, s3://bucket/key or hf://owner/repo[@revision]/file stands for.

    Args:
        reference: As the user wrote it.
        kind: For suggestions.
        where: What asked for it, for messages.
        download: Whether to fetch what is not here yet.

    Raises:
        CheckpointError: The reference is not understood, or the file is missing or unreachable.
        VouchError: The cache cannot be written.
    """
    if reference.startswith("s3://"):
        return bucket_file(reference, where, download)
    if reference.startswith("hf://"):
        repository, revision, inside = split_hub_reference(reference, where)
        if not inside:
            raise CheckpointError(f"{where}: {reference} names no file; write hf://owner/repo[@revision]/file")
        return hub_file(repository, revision, inside, where, download)
    scheme, separator, _ = reference.partition("://")
    if separator:
        raise CheckpointError(
            f"{where}: {scheme}:// is not understood; use a path, s3://bucket/key or hf://owner/repo/file"
        )
    path = Path(reference).expanduser()
    if path.is_dir():
        raise CheckpointError(f"{where}: {reference} is a folder; name the file in it")
    if not path.is_file():
        raise CheckpointError(f"{where}: no file {reference}; {_suggestion(reference, kind)}")
    return path


def split_hub_reference(reference: str, where: str) -> tuple[str, str | None, str]:
    """Take hf://owner/repo[@revision][/file] apart into repository, revision and file ('' when none is named).

    Raises:
        CheckpointError: Owner or repository is missing.
    """
    owner, _, rest = reference.removeprefix("hf://").partition("/")
    name, _, inside = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name:
        raise CheckpointError(f"{where}: {reference} is no hub reference; write hf://owner/repo[@revision]/file")
    return f"{owner}/{name}", revision or None, inside


def names_of(kind: Kind) -> list[str]:
    """What `checkpoint` may be by name for a kind of model."""
    return ["starter", *(name for name, official in OFFICIAL.items() if official.kind == kind)]


def _suggestion(reference: str, kind: Kind) -> str:
    names = names_of(kind)
    near = difflib.get_close_matches(reference, names, n=1)
    return f"did you mean {near[0]}?" if near else f"give a path that exists, or one of {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class Official:
    """One published file."""

    kind: Kind
    architecture: str
    """Name of a built-in architecture of the backend that reads it."""
    repository: str
    """owner/name on the model hub."""
    revision: str
    """Commit, or branch where the SHA-256 alone pins the file."""
    path: str
    """File inside the repository; its last part is the file's published name."""
    sha256: str
    size: int
    """Bytes."""


OFFICIAL: Final[dict[str, Official]] = {
    "groundingdino_swint_ogc": Official(
        kind="detector",
        architecture="swin_t",
        repository="ShilongLiu/GroundingDINO",
        revision="a94c9b567a2a374598f05c584e96798a170c56fb",
        path="groundingdino_swint_ogc.pth",
        sha256="3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
        size=693_997_677,
    ),
    "groundingdino_swinb_cogcoor": Official(
        kind="detector",
        architecture="swin_b",
        repository="ShilongLiu/GroundingDINO",
        revision="a94c9b567a2a374598f05c584e96798a170c56fb",
        path="groundingdino_swinb_cogcoor.pth",
        sha256="46270f7a822e6906b655b729c90613e48929d0f2bb8b9b76fd10a856f3ac6ab7",
        size=938_057_991,
    ),
    "sam_vit_b": Official(
        kind="segmenter",
        architecture="vit_b",
        repository="ybelkada/segment-anything",
        revision="main",
        path="checkpoints/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
    ),
    "sam_vit_l": Official(
        kind="segmenter",
        architecture="vit_l",
        repository="ybelkada/segment-anything",
        revision="main",
        path="checkpoints/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size=1_249_524_607,
    ),
    "sam_vit_h": Official(
        kind="segmenter",
        architecture="vit_h",
        repository="ybelkada/segment-anything",
        revision="main",
        path="checkpoints/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
    ),
}
"""Name -> file, as `models.<kind>.checkpoint` and `vouch models list` know it."""


def hub_file(repository: str, revision: str | None, path: str, where: str, download: bool) -> Path:
    """Path of a hub file on this machine.

    Args:
        repository: owner/name.
        revision: Branch, tag or commit; None: the main branch.
        path: File inside the repository.
        where: What asked for it, for messages ("models.detector.checkpoint").
        download: Whether to fetch what is not here yet; the hub client's offline switch is honoured.

    Raises:
        CheckpointError: The file, revision or repository does not exist, is closed to this user, or is not here and
            cannot be fetched now.
        VouchError: The disk is full or cannot be written.
    """
    from huggingface_hub import hf_hub_download

    with _in_one_line(f"{_name(repository, revision)}/{path}", where, download):
        return Path(hf_hub_download(repository, path, revision=revision, local_files_only=not download))


def hub_folder(
    repository: str, revision: str | None, patterns: Sequence[str], where: str, download: bool = True
) -> Path:
    """Folder on this machine with the files of a hub repository that match one of the patterns.

    Args:
        repository: owner/name.
        revision: Branch, tag or commit; None: the main branch.
        patterns: Globs such as *.json.
        where: What asked for it, for messages.
        download: Whether to fetch what is not here yet.

    Raises:
        CheckpointError: As `hub_file`.
        VouchError: As `hub_file`.
    """
    from huggingface_hub import snapshot_download

    with _in_one_line(_name(repository, revision), where, download):
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(patterns), local_files_only=not download
            )
        )


def _name(repository: str, revision: str | None) -> str:
    return f"hf://{repository}{'@' + revision if revision else ''}"


@contextmanager
def _in_one_line(name: str, where: str, download: bool) -> Iterator[None]:
    """Say in the project's words what the hub client reports."""
    from huggingface_hub import errors

    try:
        yield
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
        raise CheckpointError(_absent(where, name, download)) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise CheckpointError(f"{where}: {name}: the hub answered {status}; try again or use a local path") from error
    except OSError as error:
        raise VouchError(f"{where}: cannot keep {name}: {error.strerror or error}; make room or set HF_HOME") from error


def _absent(where: str, name: str, download: bool) -> str:
    if download:
        return f"{where}: {name} is not on this machine and the hub cannot be reached; give the path of a local copy"
    return f"{where}: {name} is not on this machine yet; fetch it with `vouch models pull`, or give a local path"


def bucket_file(reference: str, where: str, download: bool) -> Path:
    """Path of the local copy of an s3:// object.

    Credentials, region and endpoint come from boto3's own chain (AWS_ENDPOINT_URL for S3-compatible stores). The
    object is asked for its ETag each time; a copy with that ETag is not fetched again.

    Args:
        reference: s3://bucket/key.
        where: What asked for it, for messages.
        download: Whether to fetch what is not here yet.

    Raises:
        CheckpointError: There is no such object, access is refused, the store does not answer, or the object is not
            here and must not be fetched.
        VouchError: The disk is full or cannot be written.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = reference.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise CheckpointError(f"{where}: {reference} names no file; write s3://bucket/key")
    options = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        client = boto3.client("s3", config=options)
        etag = client.head_object(Bucket=bucket, Key=key)["ETag"]
        target = cache_folder() / "s3" / fingerprint(client.meta.endpoint_url, bucket, key, etag) / Path(key).name
        if target.is_file():
            return target
        if not download:
            raise CheckpointError(f"{where}: {reference} is not on this machine yet; run `vouch models pull`")
        _fetch(client, bucket, key, target)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown error")
        raise CheckpointError(f"{where}: {reference}: {_REASONS.get(code, f'the store answered {code}')}") from error
    except BotoCoreError as error:
        raise CheckpointError(
            f"{where}: {reference}: {type(error).__name__}; check AWS_ENDPOINT_URL, region and credentials"
        ) from error
    except OSError as error:
        raise VouchError(
            f"{where}: cannot keep {reference}: {error.strerror or error}; free space or set VOUCH_CACHE"
        ) from error
    return target


_REASONS = {
    "404": _MISSING,
    "NoSuchKey": _MISSING,
    "NoSuchBucket": "no such bucket; check its name and region",
    "403": _REFUSED,
    "AccessDenied": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
}


def _fetch(client: "S3Client", bucket: str, key: str, target: Path) -> None:
    """Stream the object to a temporary file and move it in place, so that a killed download leaves no half file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            client.download_fileobj(bucket, key, file)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Hex of SHA-256 over a file's bytes.

    The answer is remembered in the cache folder under the file's full path, size and modification time, so that a
    nightly run does not read gigabytes again. A cache that cannot be written only costs time.

    Args:
        path: An existing file.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        path = path.resolve()
        stat = path.stat()
        now = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        note = cache_folder() / "sha256" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
        known = _read(note)
        if known is not None and {name: known.get(name) for name in now} == now:
            return str(known["sha256"])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}; check its rights") from error
    with contextlib.suppress(OSError):
        _write(note, {**now, "sha256": digest})
    return digest


def _read(note: Path) -> dict[str, object] | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and isinstance(known.get("sha256"), str) else None


def _write(note: Path, record: dict[str, object]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=note.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(record, file)
        Path(temporary).replace(note)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def cache_folder() -> Path:
    """VOUCH_CACHE where it is set, else vouch in XDG_CACHE_HOME (~/.cache); not made here."""
    chosen = os.environ.get("VOUCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "vouch"


def tokenizer_folder(text_encoder: str | None, weights: Weights) -> Path:
    """Folder of the tokenizer.

    Args:
        text_encoder: A folder, or a name on the hub. None: a folder `tokenizer` beside the checkpoint where there is
            one (the bundled model has), else bert-base-uncased. Names are looked for in <cache>/tokenizers/<name>
            (put there by hand on machines without the hub), then in the hub's cache, then on the hub.
        weights: The checkpoint.

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
    folder = hub_folder(name, None, _FILES, _WHERE)
    if not _is_tokenizer(folder):
        raise CheckpointError(f"{_WHERE}: {name} on the hub holds no tokenizer; give a folder that does")
    return folder


def _is_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file()
