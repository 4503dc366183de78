"""Serves a queue to its reviewers: starts a server for each, ends all in order, gives back what lies on the desks."""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from review_ui.desk_name import desk_name, reviewer_slug
from review_ui.guard.login import token_hash
from review_ui.guard.settings import GuardSettings
from review_ui.queue.queue import Queue
from review_ui.server.database_use import DatabaseUse
from review_ui.server.environment import server_environment
from review_ui.server.machine_folder import open_lock, queue_folder, try_lock
from review_ui.server.options import ServeOptions
from review_ui.server.ports import bind, port_of
from review_ui.server.process import ReviewerServer
from review_ui.server.settings import ServerSettings
from schemas.campaign import Campaign
from schemas.errors import UserError, VouchError
from tasks.store.open import open_store
from tasks.store.s3 import origin_of, presigned_url

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A reviewer's server that answers."""

    server: ReviewerServer
    port: int

    @property
    def reviewer(self) -> str:
        """Whose desk it shows."""
        return self.server.reviewer


@contextmanager
def served(
    campaign: Campaign,
    queue: str,
    database: DatabaseUse,
    options: ServeOptions,
    tokens: Mapping[str, str],
    log_folder: Path,
    prepare: Callable[[], None] = lambda: None,
    sockets: list[socket.socket] | None = None,
) -> Iterator[list[Served]]:
    """Run the servers of all reviewers for the length of the block; they answer when it begins.

    When it ends, however it ends, the servers have ended and the items on the desks are given back.

    Args:
        campaign: Whose source the images lie in.
        queue: Id of the queue, which is filled, at the latest by `prepare`.
        database: Where it lies.
        options: Who reviews and where.
        tokens: Reviewer -> token.
        log_folder: Where each server's log goes.
        prepare: What can be done while the servers import FiftyOne; its errors end the review.
        sockets: What `reserved` gave; reserved now if not given.

    Raises:
        UserError: A port is taken, or a reviewer's desk is open already.
        VouchError: A server does not start.
    """
    with ExitStack() as stack:
        if sockets is None:
            sockets = stack.enter_context(reserved(queue, options))
        stack.callback(_give_back, database.uri, queue, options.reviewers)
        found = []
        for reviewer, bound in zip(options.reviewers, sockets, strict=True):
            settings = _settings(campaign, queue, reviewer, tokens[reviewer], options, bound)
            environment = server_environment(os.environ, database.uri, queue, reviewer, campaign.review.batch)
            log = log_folder / f"review-{queue}-{reviewer_slug(reviewer)}.log"
            server = ReviewerServer(settings, bound, environment, log)
            stack.callback(server.stop)
            found.append(Served(server, port_of(bound)))
        # All are asked to end before one is waited for.
        stack.callback(_terminate, found)
        for one in found:
            one.server.start()
        prepare()
        for one in found:
            one.server.tell()
        for one in found:
            one.server.wait()
        yield found


@contextmanager
def reserved(queue: str, options: ServeOptions) -> Iterator[list[socket.socket]]:
    """Hold the desks and ports of all reviewers for the length of the block; a socket each, in their order.

    Args:
        queue: Id of the queue.
        options: Who reviews and where.

    Raises:
        UserError: A port is taken, or a reviewer's desk is open already.
    """
    with ExitStack() as stack:
        for reviewer in options.reviewers:
            stack.enter_context(_alone(queue, reviewer))
        sockets = bind(options.host, options.port, len(options.reviewers))
        for bound in sockets:
            stack.enter_context(bound)
        yield sockets


def _terminate(servers: list[Served]) -> None:
    for one in servers:
        one.server.terminate()


def _settings(
    campaign: Campaign, queue: str, reviewer: str, token: str, options: ServeOptions, bound: socket.socket
) -> ServerSettings:
    url = presigned_url(open_store(campaign.source), "x", 60) if options.media == "redirect" else None
    guard = GuardSettings(
        queue=queue,
        reviewer=reviewer,
        desk=desk_name(queue, reviewer),
        port=port_of(bound),
        token_sha256=token_hash(token),
        session_key=secrets.token_hex(32),
        hosts=options.hosts,
        trust_header=options.trust_header,
        trusted_proxies=options.trusted_proxies,
        media=options.media,
        image_origin=origin_of(url) if url else None,
        max_pixels=campaign.source.max_pixels,
    )
    return ServerSettings(guard=guard, source=campaign.source, socket=bound.fileno())


@contextmanager
def _alone(queue: str, reviewer: str) -> Iterator[None]:
    """Hold a reviewer's desk on this machine: two servers would pull it to and fro."""
    with open_lock(queue_folder(queue) / "desks" / f"{reviewer_slug(reviewer)}.lock") as file:
        if not try_lock(file):
            raise UserError(
                f"{reviewer}'s desk is open already on this machine; use that one, or give another --reviewer"
            )
        yield


def _give_back(uri: str, queue: str, reviewers: tuple[str, ...]) -> None:
    try:
        with Queue.open(uri, queue) as opened:
            for reviewer in reviewers:
                opened.give_back(reviewer)
    except VouchError as error:
        logger.warning("the items on the desks could not be given back (their leases run out): %s", error)
