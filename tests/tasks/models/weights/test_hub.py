"""Against a small server that answers as the hub does, since no real hub may be asked."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from schemas.campaign import DetectorConfig
from schemas.errors import CheckpointError, VouchError
from tasks.models.weights.resolve import resolve

COMMIT = "c" * 40
BODY = b"hub weights"


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        return

    def _answer(self, body: bool) -> None:
        errors = {
            "/owner/gated/": (403, "GatedRepo"),
            "/owner/none/": (404, "RepoNotFound"),
            "/owner/repo/resolve/old/": (404, "RevisionNotFound"),
            "/owner/repo/resolve/main/none": (404, "EntryNotFound"),
            "/owner/broken/": (400, ""),
        }
        status, code = next((answer for start, answer in errors.items() if self.path.startswith(start)), (200, ""))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(BODY).hexdigest()}"')
        self.send_header("Content-Length", str(len(BODY) if status == 200 else 0))
        self.end_headers()
        if body and status == 200:
            self.wfile.write(BODY)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(reference: str, download: bool = True) -> Path:
    return resolve(DetectorConfig(checkpoint=reference), "detector", download=download).path


def test_file_is_fetched_and_then_here(hub: Path) -> None:
    with pytest.raises(CheckpointError, match="fetch it with `vouch models pull`"):
        fetch("hf://owner/repo@main/w.pth", download=False)
    path = fetch("hf://owner/repo@main/w.pth")
    assert path.read_bytes() == BODY
    assert path.is_relative_to(hub)
    assert fetch("hf://owner/repo@main/w.pth", download=False) == path


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("hf://owner/gated/w.pth", "accept them and set HF_TOKEN"),
        ("hf://owner/none/w.pth", "no such repository"),
        ("hf://owner/repo@old/w.pth", "no such revision"),
        ("hf://owner/repo/none.pth", "no such file in the repository"),
    ],
)
def test_what_the_hub_refuses_is_said(hub: Path, reference: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as raised:
        fetch(reference)
    assert "\n" not in str(raised.value)
    assert "127.0.0.1" not in str(raised.value)


def test_offline_official_name_is_one_line(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="the hub cannot be reached; give the path of a local copy"):
        fetch("groundingdino_swint_ogc")


def test_broken_hub_is_one_line(hub: Path) -> None:
    with pytest.raises((CheckpointError, VouchError)) as raised:
        fetch("hf://owner/broken/w.pth")
    assert "\n" not in str(raised.value)
    assert "hf://owner/broken/w.pth" in str(raised.value)
