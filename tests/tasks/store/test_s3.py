"""The store on S3: listing, reading, conditions, what comes damaged, expired credentials, errors in a line."""

import hashlib
import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3.exceptions
import pytest
from botocore import exceptions as e
from botocore.parsers import ResponseParserError

from tests.processes import HANG_S
from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import (
    ObjectArchivedError,
    ObjectMissingError,
    ObjectRefusedError,
    StoreAccessError,
    StoreError,
    VouchError,
)
from vouch_labels.tasks.store import s3
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import check_readable, check_writable
from vouch_labels.tasks.store.s3 import S3Store, origin_of, presigned_url, s3_client, s3_errors, without_secrets

Answer = Callable[[BaseHTTPRequestHandler], None]
MakeOptions = Callable[..., S3Options]


class Scripted:
    """An HTTP server on loopback that answers as a test says, one answer after the other, the last one for good."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                scripted.requests.append((self.command, self.path, dict(self.headers)))
                (scripted.answers.pop(0) if len(scripted.answers) > 1 else scripted.answers[0])(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        for method in ("GET", "PUT", "HEAD", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def scripted(credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(s3, "CONFLICT_WAITS_S", (0.001, 0.001))
    monkeypatch.setattr(s3, "BROKEN_OFF_WAIT_S", 0.001)
    with closing(Scripted()) as server:
        yield server


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return send


def refusal(status: int, code: str, message: str = "", more: str = "", **headers: str) -> Answer:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return answer(status, text.encode(), Content_Type="application/xml", **headers)


def broken_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("ETag", '"x"')
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"part")
    handler.close_connection = True


def test_keys_that_urls_would_mangle_survive(s3_store: S3Store) -> None:
    keys = ["a b", "a+b", "a%20b", "ä/ö", "x?y=z", "x#y", "x&y", "=", "~", "(1)", "a'b", 'a"b', "a\\b", "a:b", "x\ty"]
    for key in keys:
        s3_store.put(key, key.encode())
    assert [info.key for info in s3_store.list()] == sorted(keys)
    for key in keys:
        assert s3_store.get(key).data == key.encode()
        assert s3_store.stat(key) is not None


def test_folder_markers_are_no_objects(s3_store: S3Store) -> None:
    for key in ("", "x/"):
        s3_store.client.put_object(Bucket=s3_store.bucket, Key=s3_store.prefix + key, Body=b"")
    s3_store.put("x/1.jpg", b"")
    assert [info.key for info in s3_store.list()] == ["x/1.jpg"]


def test_a_prefix_is_a_folder(s3_store: S3Store) -> None:
    S3Store(s3_store.bucket, "some/prefix2", s3_store.options).put("x", b"")
    s3_store.put("y", b"")
    assert [info.key for info in s3_store.list()] == ["y"]
    whole = S3Store(s3_store.bucket, "", s3_store.options)
    assert [info.key for info in whole.list()] == ["some/prefix/y", "some/prefix2/x"]


def test_a_listing_is_paged(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    # A real server puts a thousand keys on a page; moto takes long to store so many.
    on_a_page = 1000 if "real" in request.node.callspec.id else 10
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(on_a_page))
    asked: list[str] = []

    def note(**what: Any) -> None:
        asked.append(str(what["request"]))

    events = s3_store.client.meta.events
    events.register("before-send.s3.ListObjectsV2", note)
    request.addfinalizer(lambda: events.unregister("before-send.s3.ListObjectsV2", note))
    count = on_a_page + 5
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: s3_store.put(f"{number:04d}", b""), range(count)))
    assert [info.key for info in s3_store.list()] == [f"{number:04d}" for number in range(count)]
    assert len(asked) == 2


def test_a_changed_object_shows_in_its_tag(s3_store: S3Store) -> None:
    s3_store.put("x", b"1")
    (listed,) = s3_store.list()
    s3_store.put("x", b"2")
    assert s3_store.get("x").etag != listed.etag


def test_threads_share_one_client(moto_store: S3Store, make_options: MakeOptions) -> None:
    options = make_options("http://127.0.0.1:1", threads=7)
    start = threading.Barrier(8)

    def client(_: int) -> Any:
        start.wait()
        return s3_client(options)

    with ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(client, range(8)))
    assert len(set(map(id, clients))) == 1
    config = clients[0].meta.config
    assert (config.max_pool_connections, config.connect_timeout, config.read_timeout) == (7, 5.0, 60.0)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}
    assert config.s3 == {"addressing_style": "path"}
    assert config.request_checksum_calculation == "when_required"
    assert s3_client(options.model_copy(update={"threads": 8})) is not clients[0]


def test_other_credentials_make_another_client(
    moto_store: S3Store, make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options("http://127.0.0.1:1")
    before = s3_client(options)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    assert s3_client(options) is not before


def test_an_endpoint_that_is_no_url_is_explained(credentials: None, make_options: MakeOptions) -> None:
    with pytest.raises(StoreAccessError, match="cannot set up S3: Invalid endpoint"):
        next(S3Store("b", "", make_options("not a url")).list())


def test_a_profile_that_does_not_exist_is_explained(
    credentials: None, make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(StoreAccessError, match="no-such-profile"):
        check_readable(S3Store("b", "", make_options("http://127.0.0.1:1")))


def test_an_endpoint_where_nobody_answers_is_explained(credentials: None, make_options: MakeOptions) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://user:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreAccessError, match=r"does not answer; check s3\.endpoint_url") as raised:
            check_readable(S3Store("b", "", make_options(endpoint, max_attempts=1)))
    assert "hunter2" not in str(raised.value)


def test_missing_credentials_are_explained(
    moto_endpoint: str, credentials: None, make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(StoreAccessError, match="no usable credentials; set AWS_ACCESS_KEY_ID"):
        check_readable(S3Store("b", "", make_options(moto_endpoint)))


@pytest.mark.s3
def test_wrong_credentials_are_explained(real_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreAccessError, match="does not know the access key"):
        check_readable(S3Store(real_store.bucket, "", real_store.options))
    monkeypatch.undo()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    # Another secret alone asks for no other client, so another number of threads does.
    options = real_store.options.model_copy(update={"threads": 3})
    with pytest.raises(StoreAccessError, match="secret key does not fit") as raised:
        check_readable(S3Store(real_store.bucket, "", options))
    assert "wrong-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (refusal(403, "AccessDenied"), StoreAccessError, r"access denied; grant s3:ListBucket"),
        (refusal(403, "SomethingNew"), StoreAccessError, "access denied; grant"),
        (refusal(403, "InvalidAccessKeyId"), StoreAccessError, "does not know the access key"),
        (refusal(403, "RequestTimeTooSkewed"), StoreAccessError, "clock"),
        (refusal(400, "ExpiredToken"), StoreAccessError, "log in again"),
        (refusal(404, "NoSuchBucket"), StoreAccessError, "does not exist"),
        (refusal(404, "NotFound"), StoreAccessError, "does not exist"),
        (
            refusal(400, "AuthorizationHeaderMalformed", "wrong", "<Region>eu-north-1</Region>"),
            StoreAccessError,
            r"another region \(eu-north-1\); set s3.region",
        ),
        (refusal(400, "IllegalLocationConstraintException"), StoreAccessError, "another region; set s3.region"),
        (refusal(503, "SlowDown"), StoreError, "lower s3.threads"),
        (refusal(403, "InvalidObjectState"), ObjectArchivedError, "archived .* restore it in the store, and run again"),
        (refusal(400, "ExpiredTokenException"), StoreAccessError, "log in again"),
        (refusal(400, "RequestExpired"), StoreAccessError, "clock is wrong; log in again"),
        (refusal(403, "InvalidClientTokenId"), StoreAccessError, "does not know the access key"),
        (refusal(507, "InsufficientStorage"), StoreError, "free some space"),
        (refusal(400, "QuotaExceeded"), StoreError, "quota"),
        (refusal(418, "Teapot", "see http://k:s@x/y?sig=hunter2 or\nnot"), StoreError, "Teapot see http://x/y or not"),
        (answer(500, b""), StoreError, "answers 500 without saying why; check s3.endpoint_url, or try again later"),
        (answer(200, b"<html><p>Welcome!</html>", Content_Type="text/html"), StoreError, "check s3.endpoint_url"),
        (answer(404, b"<html>Not here</html>"), StoreAccessError, "check the name, s3.endpoint_url and s3.region"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    scripted: Scripted, make_options: MakeOptions, reply: Answer, kind: type[VouchError], text: str
) -> None:
    scripted.answers = [reply]
    with pytest.raises(VouchError, match=text) as raised:
        check_readable(S3Store("b", "p", make_options(scripted.endpoint)))
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "test-secret" not in str(raised.value)


def test_a_bucket_that_takes_no_writes_is_explained(scripted: Scripted, make_options: MakeOptions) -> None:
    scripted.answers = [refusal(403, "AccessDenied")]
    with pytest.raises(StoreAccessError, match="grant s3:PutObject"):
        check_writable(S3Store("b", "p", make_options(scripted.endpoint)))
    with pytest.raises(ObjectRefusedError, match="grant s3:GetObject"):
        S3Store("b", "p", make_options(scripted.endpoint)).stat("x")


def test_requests_are_repeated(scripted: Scripted, make_options: MakeOptions) -> None:
    scripted.answers = [refusal(500, "InternalError"), broken_off, answer(200, b"whole", ETag='"x"')]
    assert S3Store("b", "p", make_options(scripted.endpoint, max_attempts=3)).get("x") == (b"whole", "x")


def test_an_answer_that_always_breaks_off_is_an_error(scripted: Scripted, make_options: MakeOptions) -> None:
    scripted.answers = [broken_off]
    with pytest.raises(StoreError, match="the connection broke off; run again"):
        S3Store("b", "p", make_options(scripted.endpoint)).get("x")
    assert len(scripted.requests) == 2


CONTENT = b"the picture as it was stored"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
CUT, FLIPPED = CONTENT[:-3], CONTENT[:5] + b"X" + CONTENT[6:]


def content(body: bytes, etag: str = MD5, **headers: str) -> Answer:
    return answer(200, body, ETag=f'"{etag}"', **headers)


@pytest.fixture
def md5_bucket(monkeypatch: pytest.MonkeyPatch, scripted: Scripted) -> None:
    """The bucket's ETags have been seen to be MD5s."""
    monkeypatch.setattr(s3, "_has_md5_tags", {(scripted.endpoint, False): True})


@pytest.mark.usefixtures("md5_bucket")
@pytest.mark.parametrize("body", [CUT, FLIPPED, b""])
def test_what_does_not_fit_its_md5_is_read_again(scripted: Scripted, make_options: MakeOptions, body: bytes) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint, max_attempts=3))
    scripted.answers = [content(body), content(body), content(CONTENT)]
    assert store.get("x") == (CONTENT, MD5)
    scripted.answers = [content(body)]
    with pytest.raises(StoreError, match="is not what was stored"):
        store.get("x")
    assert len(scripted.requests) == 3 + 3


@pytest.mark.usefixtures("md5_bucket")
@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        (f"{MD5}-2", {}),
        ("0" * 32, {"x_amz_server_side_encryption": "aws:kms"}),
        ("0" * 32, {"x_amz_server_side_encryption_customer_algorithm": "AES256"}),
        ("CJ+2nbXy", {}),
    ],
)
def test_an_etag_that_is_no_md5_is_not_compared(
    scripted: Scripted, make_options: MakeOptions, etag: str, headers: dict[str, str]
) -> None:
    scripted.answers = [content(CONTENT, etag, **headers)]
    assert S3Store("b", "", make_options(scripted.endpoint)).get("x").etag == etag
    assert len(scripted.requests) == 1


def test_a_store_whose_etags_never_were_md5s_is_believed(
    scripted: Scripted, make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_has_md5_tags", {})
    store = S3Store("b", "", make_options(scripted.endpoint, max_attempts=3))
    # Not one that sends now this and now that.
    scripted.answers = [content(CUT), content(FLIPPED), content(CUT)]
    with pytest.raises(StoreError, match="is not what was stored"):
        store.get("x")
    scripted.answers = [content(CONTENT, "0" * 32)]
    assert store.get("x").data == store.get("y").data == CONTENT
    assert len(scripted.requests) == 3 + 3 + 1
    # One that fits tells that they are; from then on it counts.
    scripted.answers = [content(CONTENT), content(FLIPPED), content(CONTENT)]
    assert store.get("x").data == store.get("y").data == CONTENT
    assert len(scripted.requests) == 3 + 3 + 1 + 3


def test_what_is_written_tells_whether_etags_are_md5s(
    scripted: Scripted, make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_has_md5_tags", {})
    scripted.answers = [answer(200, ETag=f'"{MD5}"'), content(FLIPPED)]
    S3Store("workspace", "", make_options(scripted.endpoint)).put("x", CONTENT)
    with pytest.raises(StoreError, match="is not what was stored"):
        S3Store("b", "", make_options(scripted.endpoint)).get("x")


def test_a_checksum_that_does_not_fit_is_read_again(scripted: Scripted, make_options: MakeOptions) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint, checksums="when_supported", max_attempts=3))
    wrong = content(CONTENT, f"{MD5}-2", x_amz_checksum_crc32="AAAAAA==", x_amz_checksum_type="FULL_OBJECT")
    scripted.answers = [wrong, wrong, content(CONTENT, f"{MD5}-2")]
    assert store.get("x").data == CONTENT
    scripted.answers = [wrong]
    with pytest.raises(StoreError, match="is not what was stored"):
        store.get("x")
    assert len(scripted.requests) == 3 + 3


@pytest.mark.usefixtures("md5_bucket")
def test_a_large_object_is_compared_too(scripted: Scripted, make_options: MakeOptions) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint, max_attempts=3))

    bodies = [FLIPPED, CUT, CONTENT]

    def send(handler: BaseHTTPRequestHandler) -> None:
        looks = handler.command == "HEAD"
        content(CONTENT if looks else bodies.pop(0))(handler)

    scripted.answers = [send]
    with store.open_reader("x") as file:
        assert file.read() == CONTENT
    bodies += [FLIPPED] * 3
    with pytest.raises(StoreError, match="is not what was stored"), store.open_reader("x"):
        pass


@pytest.fixture
def keys_file(credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Writes the shared credentials file, from which keys are taken."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))

    def write(key: str) -> None:
        path.write_text(
            f"[default]\naws_access_key_id={key}\naws_secret_access_key=secret\naws_session_token=t-{key}\n"
        )

    write("old")
    return write


def takes(key: str, good: Answer, code: str = "ExpiredToken", status: int = 400) -> Answer:
    """A store that takes one key alone."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        known = f"Credential={key}/" in handler.headers["Authorization"]
        reply = good if handler.command == "GET" else answer(200, ETag='"x"')
        (reply if known else refusal(status, code))(handler)

    return send


PAGE = """<ListBucketResult>{more}
<Contents><Key>{key}</Key><ETag>"x"</ETag><Size>1</Size></Contents></ListBucketResult>"""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ExpiredToken", 400),
        ("ExpiredTokenException", 400),
        ("TokenRefreshRequired", 400),
        ("InvalidToken", 400),
        ("RequestExpired", 400),
        ("InvalidAccessKeyId", 403),
        ("SignatureDoesNotMatch", 403),
    ],
)
def test_a_key_that_was_rotated_is_read_again(
    scripted: Scripted, make_options: MakeOptions, keys_file: Callable[[str], None], code: str, status: int
) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint))
    scripted.answers = [takes("old", answer(200, b"1", ETag='"x"'), code, status)]
    assert store.get("x").data == b"1"
    keys_file("new")
    scripted.answers = [takes("new", answer(200, b"1", ETag='"x"'), code, status)]
    assert store.get("x").data == b"1"
    assert store.put("y", b"2")
    assert store.put("z", b"2", if_absent=True)
    assert store.stat("x") is not None
    # Nothing was in vain after the first.
    assert [method for method, _, _ in scripted.requests] == ["GET", "GET", "GET", "PUT", "PUT", "HEAD"]


def test_a_key_that_expires_while_listing_costs_nothing(
    scripted: Scripted, make_options: MakeOptions, keys_file: Callable[[str], None]
) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint))
    first, last = (
        answer(200, PAGE.format(key=key, more=more).encode(), Content_Type="application/xml")
        for key, more in (("1", "<NextContinuationToken>next</NextContinuationToken>"), ("2", ""))
    )
    scripted.answers = [takes("old", first), takes("new", last)]
    listed = store.list()
    assert next(listed).key == "1"
    keys_file("new")
    assert [info.key for info in listed] == ["2"]
    assert "continuation-token=next" in scripted.requests[-1][1]


def test_several_threads_list_through_faults_and_a_new_key(
    scripted: Scripted, make_options: MakeOptions, keys_file: Callable[[str], None]
) -> None:
    keys = [f"{number:05d}" for number in range(600)]
    asked = itertools.count(1)

    def page(handler: BaseHTTPRequestHandler) -> None:
        number = next(asked)
        if number == 40:
            keys_file("new")
        if number in (20, 60):
            return refusal(503, "SlowDown")(handler)
        query = parse_qs(urlsplit(handler.path).query)
        after = query["continuation-token" if "continuation-token" in query else "start-after"][0] if number > 1 else ""
        found = [key for key in keys if key > after]
        more = f"<NextContinuationToken>{found[4]}</NextContinuationToken>" if len(found) > 5 else ""
        contents = "".join(f'<Contents><Key>{key}</Key><ETag>"x"</ETag><Size>1</Size></Contents>' for key in found[:5])
        body = f"<ListBucketResult>{more}{contents}</ListBucketResult>"
        return takes("old" if number < 40 else "new", answer(200, body.encode(), Content_Type="application/xml"))(
            handler
        )

    scripted.answers = [page]
    store = S3Store("b", "", make_options(scripted.endpoint, threads=4, max_attempts=5))
    assert [info.key for info in store.list()] == keys
    assert any("start-after" in path for _, path, _ in scripted.requests)


def test_of_many_threads_one_makes_the_new_client(
    scripted: Scripted, make_options: MakeOptions, keys_file: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint))
    scripted.answers = [takes("new", answer(200, b"1", ETag='"x"'))]
    assert store.client is s3_client(store.options)
    keys_file("new")
    made: list[S3Options] = []
    connect = s3._connect

    def counted(options: S3Options) -> Any:
        made.append(options)
        return connect(options)

    monkeypatch.setattr(s3, "_connect", counted)
    with ThreadPoolExecutor(8) as pool:
        assert {blob.data for blob in pool.map(store.get, map(str, range(16)))} == {b"1"}
    assert len(made) == 1


def test_without_another_key_it_is_over_at_once(
    scripted: Scripted, make_options: MakeOptions, keys_file: Callable[[str], None]
) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint))
    scripted.answers = [takes("new", answer(200, b"1", ETag='"x"'))]
    with pytest.raises(StoreAccessError, match="expired; log in again"):
        store.get("x")
    assert len(scripted.requests) == 1
    keys_file("newer")  # and expired as well: one new client, then the reason
    with pytest.raises(StoreAccessError, match="expired; log in again"):
        store.get("x")
    assert len(scripted.requests) == 3


def test_an_endpoint_that_hangs_is_an_error(scripted: Scripted, make_options: MakeOptions) -> None:
    release = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        release.wait(HANG_S)
        handler.close_connection = True

    scripted.answers = [hang]
    try:
        with pytest.raises(StoreError, match="the connection broke off"):
            S3Store("b", "", make_options(scripted.endpoint, read_timeout_s=0.05, max_attempts=1)).get("x")
    finally:
        release.set()


def test_a_conflict_is_tried_again(scripted: Scripted, make_options: MakeOptions) -> None:
    conflict = refusal(409, "ConditionalRequestConflict")
    scripted.answers = [conflict, conflict, answer(200, ETag='"x"')]
    assert S3Store("b", "", make_options(scripted.endpoint)).put("x", b"1", if_absent=True)
    assert [headers["If-None-Match"] for _, _, headers in scripted.requests] == ["*"] * 3
    scripted.answers = [conflict]
    with pytest.raises(StoreError, match="ConditionalRequestConflict"):
        S3Store("b", "", make_options(scripted.endpoint)).put("x", b"1", if_absent=True)


def test_a_write_that_its_own_repetition_refuses_has_succeeded(scripted: Scripted, make_options: MakeOptions) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint))
    written: list[str] = []

    def lose_the_answer(handler: BaseHTTPRequestHandler) -> None:
        written.append(handler.headers["x-amz-meta-vouch-writer"])
        refusal(500, "InternalError")(handler)

    def look(handler: BaseHTTPRequestHandler) -> None:
        answer(200, x_amz_meta_vouch_writer=written[-1], ETag='"x"')(handler)

    refused = refusal(412, "PreconditionFailed")
    scripted.answers = [lose_the_answer, refused, look]
    assert store.put("x", b"1", if_absent=True)
    # The same, but the object is another writer's.
    scripted.answers = [refused, look]
    assert not store.put("x", b"1", if_absent=True)


def test_a_store_without_conditions_is_asked_before_each_write(
    scripted: Scripted, make_options: MakeOptions, caplog: pytest.LogCaptureFixture
) -> None:
    store = S3Store("b", "", make_options(scripted.endpoint, max_attempts=1))
    there, not_there, written = answer(200, ETag='"x"'), answer(404), answer(200, ETag='"x"')
    scripted.answers = [refusal(501, "NotImplemented"), not_there, written]
    with caplog.at_level(logging.INFO):
        assert store.put("x", b"1", if_absent=True)
    assert "does not know If-None-Match" in caplog.text
    scripted.answers = [there]
    assert not store.put("x", b"1", if_absent=True)
    methods = [method for method, _, _ in scripted.requests]
    assert methods == ["PUT", "HEAD", "PUT", "HEAD"]
    assert "If-None-Match" not in scripted.requests[2][2]


def test_deleting_what_is_not_there_is_fine_with_stores_that_mind(
    scripted: Scripted, make_options: MakeOptions
) -> None:
    scripted.answers = [refusal(404, "NoSuchKey")]
    S3Store("b", "", make_options(scripted.endpoint)).delete("x")


def test_a_large_stream_goes_up_in_parts(s3_store: S3Store) -> None:
    piece = bytes(range(256)) * 4096
    with s3_store.open_writer("big") as file:
        for _ in range(20):
            file.write(piece)
    assert "-" in s3_store.get("big").etag  # the tag of an upload in parts
    with s3_store.open_reader("big") as file:
        assert file.read() == piece * 20


def test_an_upload_that_is_refused_is_explained(scripted: Scripted, make_options: MakeOptions) -> None:
    scripted.answers = [refusal(403, "AccessDenied")]
    with (
        pytest.raises(StoreAccessError, match="s3:PutObject"),
        S3Store("b", "", make_options(scripted.endpoint)).open_writer("x") as file,
    ):
        file.write(b"x")


def test_a_full_local_disk_is_explained(moto_store: S3Store) -> None:
    with (
        pytest.raises(StoreError, match=r"no space left in .*; free some or set TMPDIR"),
        moto_store.open_writer("x"),
    ):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (e.SSLError(endpoint_url="https://k:hunter2@h/", error=OSError("bad")), StoreAccessError, "AWS_CA_BUNDLE"),
        (e.UnauthorizedSSOTokenError(), StoreAccessError, "log in again"),
        (e.ParamValidationError(report="Invalid bucket name"), StoreAccessError, "bucket name or key is not valid"),
        (e.PartialCredentialsError(provider="env", cred_var="x"), StoreAccessError, "no usable credentials"),
        (e.ConnectTimeoutError(endpoint_url="http://h?x=hunter2"), StoreAccessError, "does not answer"),
        (e.DataNotFoundError(data_path="x"), StoreError, "cannot do it: Unable to load data"),
        (ResponseParserError("invalid XML"), StoreAccessError, r"does not speak S3; check s3\.endpoint_url"),
        (boto3.exceptions.S3UploadFailedError("failed"), StoreError, "cannot do it: failed"),
    ],
)
def test_trouble_on_this_side_is_one_line(error: Exception, kind: type[VouchError], text: str) -> None:
    with pytest.raises(VouchError, match=text) as raised, s3_errors("do it", permission="s3:Any"):
        raise error
    assert type(raised.value) is kind
    assert "hunter2" not in str(raised.value)


def test_secrets_are_stripped_from_urls() -> None:
    text = 'see "https://u:p@host:9/b?X-Amz-Signature=abc&y=1" and s3://k@b/x'
    assert without_secrets(text) == 'see "https://host:9/b" and s3://b/x'


def test_a_missing_object_says_so(s3_store: S3Store) -> None:
    with pytest.raises(ObjectMissingError, match=f"cannot read s3://{s3_store.bucket}/some/prefix/x: no object"):
        s3_store.get("x")


@pytest.fixture
def keys(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"testing-{name}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def test_an_address_of_one_object_for_so_many_seconds(keys):
    store = S3Store("photos", "raw", S3Options(endpoint_url="http://127.0.0.1:9", region="us-east-1", path_style=True))
    url = presigned_url(store, "a folder/one.png", 60)
    assert url.startswith("http://127.0.0.1:9/photos/raw/a%20folder/one.png?")
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["60"]
    assert "testing-AWS_SECRET_ACCESS_KEY" not in url
    assert origin_of(url) == "http://127.0.0.1:9"


def test_a_folder_has_no_addresses(tmp_path):
    assert presigned_url(LocalStore(tmp_path), "one.png", 60) is None


def test_without_credentials_it_says_so(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3Store("photos", "raw", S3Options(endpoint_url="http://127.0.0.1:9", region="eu-none-1"))
    with pytest.raises(StoreAccessError, match="credentials"):
        presigned_url(store, "one.png", 60)
