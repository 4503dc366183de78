"""Serves a queue to its reviewers: one server process each, restarted when it dies, all ended in order.

Sockets are bound before anything slow is started. Reviewers log in with tokens, drawn at random or the user's own. At
the end, the items of the sessions are given back to the queue.
"""

import errno
import ipaddress
import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import Field

from vouch_labels.review_ui.guard.auth import is_loopback, token_hash
from vouch_labels.review_ui.guard.settings import GuardSettings
from vouch_labels.review_ui.queue.fill import join
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.server.mongod import DatabaseUse, open_lock, queue_folder, try_lock
from vouch_labels.review_ui.server.process import ReviewerServer, ServerSettings, server_environment
from vouch_labels.review_ui.session.session import dataset_name, reviewer_slug
from vouch_labels.schemas.campaign import Campaign, Strict
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.s3 import origin_of, presigned_url

logger = logging.getLogger(__name__)

CHECK_S: Final = 0.25
"""Between two checks whether all run."""
MOST_RESTARTS: Final = 5
"""Of a server within RESTARTS_WITHIN_S, those that failed included; also how many may fail in a row, at any pace."""
RESTARTS_WITHIN_S: Final = 60.0

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - named to be recognized

FIRST: Final = 5151
TRIED: Final = 200
BACKLOG: Final = 128

VARIABLE: Final = "VOUCH_REVIEW_TOKEN"
SHORTEST: Final = 16
"""Characters of a token of the user's own."""


class ServeOptions(Strict):
    """Who reviews, where, and which proxies are trusted."""

    reviewers: tuple[str, ...] = Field(min_length=1, description="A server is started for each.")
    host: str = Field("127.0.0.1", description="Address to bind to.")
    port: int | None = Field(None, description="The first reviewer's port; a free one from 5151 on, if not given.")
    names: tuple[str, ...] = Field((), description="Other names that browsers reach this machine by.")
    token_file: Path | None = Field(None, description="The user's own tokens.")
    trust_header: str | None = Field(None, description="Header in which a proxy names who has logged in there.")
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses or networks of proxies that are believed.")
    media: Literal["redirect", "proxy"] = Field("redirect", description="How images of a bucket reach the browser.")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that browsers may ask for, beside those of loopback."""
        return (*self.names, *(() if self.host in WILDCARDS else (self.host,)))

    def check(self, has_own_tokens: bool) -> None:
        """Refuse by a UserError what would not be safe, or would not work."""
        if not is_loopback(self.host) and not has_own_tokens:
            raise UserError(
                f"--host {self.host} lets other machines in, so reviewers need tokens of your own: give --token-file, "
                "or set VOUCH_REVIEW_TOKEN for one reviewer"
            )
        if self.host in WILDCARDS and not self.names:
            raise UserError(f"--host {self.host} has no name for browsers; give --name: how they reach this machine")
        if self.trust_header is not None and not self.trusted_proxies:
            raise UserError("--trust-header needs --trusted-proxy: the address of the proxy that sets the header")
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise UserError(
                    f"--trusted-proxy {network} is no address or network, such as 10.0.0.7 or 10.0.0.0/24"
                ) from None


class AfterReview(NamedTuple):
    """What a reviewer's last page says of the campaign."""

    certified: str = ""
    """What stands certified when the review starts, a sentence."""
    commands: tuple[tuple[str, str], ...] = ()
    """What comes next: command, what it does."""


@contextmanager
def served(
    campaign: Campaign,
    queue: str,
    database: DatabaseUse,
    options: ServeOptions,
    tokens: Mapping[str, str],
    log_folder: Path,
    prepare: Callable[[], AfterReview] = AfterReview,
    sockets: list[socket.socket] | None = None,
) -> Iterator[list[ReviewerServer]]:
    """Run the servers of all reviewers for the length of the block; they answer when it starts.

    When it ends, however it ends, the servers have ended and the items of the sessions are given back. `prepare` fills
    the queue while the servers import FiftyOne, and gives what the last page says; then the reviewers join the queue.
    `sockets` come from `reserved`.

    Raises:
        UserError: A port is taken, or a reviewer's session is open already.
        VouchError: A server does not start.
    """
    with ExitStack() as stack:
        if sockets is None:
            sockets = stack.enter_context(reserved(queue, options))
        stack.callback(_give_back, database.uri, queue, options.reviewers)
        servers = []
        for reviewer, bound in zip(options.reviewers, sockets, strict=True):
            settings = _settings(campaign, queue, reviewer, tokens[reviewer], options, bound)
            environment = server_environment(os.environ, database.uri, queue, reviewer, campaign.review.batch)
            log = log_folder / f"review-{queue}-{reviewer_slug(reviewer)}.log"
            server = ReviewerServer(settings, bound, environment, log)
            stack.callback(server.stop)
            servers.append(server)
        # Before `stop` waits for one, all are asked to end.
        for server in servers:
            stack.callback(server.terminate)
        for server in servers:
            server.start()
        after = prepare()
        with Queue.open(database.uri, queue) as opened:
            join(opened, options.reviewers)
        for server in servers:
            server.tell(*after)
            server.send_settings()
        for server in servers:
            server.wait()
        yield servers


@contextmanager
def reserved(queue: str, options: ServeOptions) -> Iterator[list[socket.socket]]:
    """Lock the sessions and ports of all reviewers for the length of the block; a socket each, in their order.

    A UserError says that a port is taken, or that a reviewer's session is open already.
    """
    with ExitStack() as stack:
        for reviewer in options.reviewers:
            stack.enter_context(_alone(queue, reviewer))
        sockets = bind(options.host, options.port, len(options.reviewers))
        for bound in sockets:
            stack.enter_context(bound)
        yield sockets


def _settings(
    campaign: Campaign, queue: str, reviewer: str, token: str, options: ServeOptions, bound: socket.socket
) -> ServerSettings:
    url = presigned_url(open_store(campaign.source), "x", 60) if options.media == "redirect" else None
    guard = GuardSettings(
        queue=queue,
        reviewer=reviewer,
        dataset=dataset_name(queue, reviewer),
        port=port_of(bound),
        token_sha256=token_hash(token),
        cookie_key=secrets.token_hex(32),
        hosts=options.hosts,
        image_origin=origin_of(url) if url else None,
        batch=campaign.review.batch,
        **campaign.source.model_dump(include={"max_pixels", "max_image_mb"}),
        **options.model_dump(include={"trust_header", "trusted_proxies", "media"}),
    )
    return ServerSettings(guard=guard, source=campaign.source, workspace=campaign.workspace, socket=bound.fileno())


@contextmanager
def _alone(queue: str, reviewer: str) -> Iterator[None]:
    """Lock a reviewer's session on this machine: two servers would change it against each other."""
    with open_lock(queue_folder(queue) / "sessions" / f"{reviewer_slug(reviewer)}.lock") as file:
        if not try_lock(file):
            raise UserError(
                f"{reviewer}'s session is open already on this machine; use that one, or give another --reviewer"
            )
        yield


def _give_back(uri: str, queue: str, reviewers: tuple[str, ...]) -> None:
    try:
        with Queue.open(uri, queue) as opened:
            for reviewer in reviewers:
                opened.give_back(reviewer)
    except VouchError as error:
        logger.warning("the items of the sessions could not be given back (their leases run out): %s", error)


def keep_alive(servers: Sequence[ReviewerServer], database: DatabaseUse, show: Callable[[str], None]) -> None:
    """Watch the servers and the database for ever, and start again what has died.

    A server that does not start is tried again after a check of the database, which it may lack. One that keeps
    dying (MOST_RESTARTS) is given up; the review of the others goes on.

    Raises:
        VouchError: None is left that runs, or the database does not start again.
    """
    watched = [_Watched(one) for one in servers]
    while True:
        time.sleep(CHECK_S)
        if database.revive():
            show("the review database had ended; it runs again, and nothing that was submitted is lost")
        for one in [each for each in watched if each.server.has_died() or each.server.has_hung()]:
            try:
                message = one.restart()
            except VouchError as error:
                watched.remove(one)
                if not watched:
                    raise
                message = f"{error}; the others go on; the items of this session are free when their leases run out"
            show(message)


class _Watched:
    def __init__(self, server: ReviewerServer) -> None:
        self.server = server
        self._restarts: deque[float] = deque(maxlen=MOST_RESTARTS)
        self._failed = 0
        """Restarts since the last one that succeeded."""

    def restart(self) -> str:
        """Try to start it again; returns a line for people on the outcome, raises a VouchError if it keeps dying."""
        what = "had ended" if self.server.has_died() else "hung"
        self.server.stop()
        now = time.monotonic()
        if len(self._restarts) == MOST_RESTARTS and now - self._restarts[0] < RESTARTS_WITHIN_S:
            raise VouchError(f"the server of {self.server.reviewer} keeps ending; {self.server.log} says why")
        self._restarts.append(now)
        logger.warning("the review server of %r %s (log: %s)", self.server.reviewer, what, self.server.log)
        try:
            self.server.start()
            self.server.send_settings()
            self.server.wait()
        except VouchError as error:
            # One that takes too long still runs; ended, it is found dead at the next check.
            self.server.stop()
            self._failed += 1
            if self._failed == MOST_RESTARTS:
                raise
            return f"{error}; it is tried again"
        self._failed = 0
        return f"the server of {self.server.reviewer} {what}; it runs again at the same address, reload the page"


def bind(host: str, port: int | None, count: int) -> list[socket.socket]:
    """Bind a socket for each reviewer: at `port` and the ones that follow, or at free ones from 5151 on.

    They stay bound while a server is started again: who asks meanwhile waits, and no other program can step in.

    Raises:
        UserError: A port that was asked for is taken, or the host cannot be bound to.
    """
    found: list[socket.socket] = []
    try:
        if port is not None:
            for number in range(port, port + count):
                found.append(_bound(host, number))
            return found
        for number in range(FIRST, FIRST + TRIED):
            if len(found) == count:
                break
            try:
                found.append(_bound(host, number))
            except _TakenError:
                continue
        if len(found) < count:
            raise UserError(f"ports {FIRST} to {FIRST + TRIED - 1} are taken; name a free one with --port")
        return found
    except BaseException:
        for one in found:
            one.close()
        raise


def port_of(bound: socket.socket) -> int:
    """The port that a socket is bound to."""
    number: int = bound.getsockname()[1]
    return number


class _TakenError(UserError):
    pass


def _bound(host: str, port: int) -> socket.socket:
    if not 0 < port < 65536:
        raise UserError(f"{port} is no port; choose one from 1024 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise UserError(f"cannot find the host {host!r}; give --host an address of this machine") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise _TakenError(f"port {port} is taken; choose another with --port, or leave --port out") from None
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} needs more rights; choose one from 1024 on with --port") from None
        raise UserError(f"cannot bind to {host}: {(error.strerror or 'failed').lower()}; fix --host") from None
    return bound


def draw_tokens(reviewers: Sequence[str]) -> dict[str, str]:
    """Draw a token of 32 random bytes for each reviewer."""
    return {reviewer: secrets.token_urlsafe(32) for reviewer in reviewers}


def own_tokens(reviewers: Sequence[str], file: Path | None, environment: Mapping[str, str]) -> dict[str, str] | None:
    """Read the tokens that the user set, by reviewer; None when the user set none.

    The file has a line a reviewer: name, a space or tab, token; for one reviewer the token alone is enough.

    Raises:
        UserError: A token is missing, or too short; the message has none.
    """
    if file is not None:
        found = _read(file, reviewers)
    elif environment.get(VARIABLE):
        if len(reviewers) > 1:
            raise UserError(f"{VARIABLE} is one reviewer's token; name each one's in a file with --token-file")
        found = {reviewers[0]: environment[VARIABLE].strip()}
    else:
        return None
    for reviewer in reviewers:
        if reviewer not in found:
            raise UserError(f"{file} has no token of {reviewer!r}; add the line: {reviewer} TOKEN")
        if len(found[reviewer]) < SHORTEST:
            raise UserError(f"the token of {reviewer!r} is shorter than {SHORTEST} characters; draw a longer one")
    return {reviewer: found[reviewer] for reviewer in reviewers}


def _read(file: Path, reviewers: Sequence[str]) -> dict[str, str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise UserError(f"cannot read the tokens in {file}; it is a text file, a line a reviewer: NAME TOKEN") from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and len(reviewers) == 1 and len(lines[0].split()) == 1:
        return {reviewers[0]: lines[0]}
    found = {}
    for number, line in enumerate(lines, 1):
        name, _, token = line.replace("\t", " ").rpartition(" ")
        if not name.strip():
            raise UserError(f"token {number} of {file} has no name; write a line a reviewer: NAME TOKEN")
        found[name.strip()] = token
    return found
