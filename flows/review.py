"""Runs a review in the browser, from what waits for an answer to the verdicts in the workspace."""

import os
import shlex
import signal
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import quote

from vouch_labels.flows.console import output
from vouch_labels.flows.console.output import Terminal, answer, log_path, print_json, show
from vouch_labels.review_ui.queue.database import version_risk
from vouch_labels.review_ui.queue.fill import fill_queue, queue_id
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import left_for
from vouch_labels.review_ui.server.answers import is_filled, pull_once
from vouch_labels.review_ui.server.mongod import DatabaseUse, review_database
from vouch_labels.review_ui.server.process import ReviewerServer
from vouch_labels.review_ui.server.serve import (
    WILDCARDS,
    AfterReview,
    ServeOptions,
    draw_tokens,
    keep_alive,
    own_tokens,
    reserved,
    served,
)
from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.queue import Left, PullOutcome
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.store.open import open_store, open_workspace

KEYS: Final = (
    "Alt+Enter correct, or as you drew it; Alt+1 ... Alt+9 another class; Alt+B bad box; Alt+N not an object",
    "Alt+M free the box of its mask; Alt+D draw a missing box; Alt+G the crop grid; Alt+S skip; Alt+Z undo; "
    "Alt+H what the models say; Alt+T the next batch; ? all keys",
)


def serve(
    terminal: Terminal,
    campaign: Campaign,
    options: ServeOptions,
    minutes: float,
    file: Path,
    *,
    open_browser: bool | None = None,
    as_json: bool = False,
) -> None:
    """Serve a campaign's queue until Ctrl-C; open_browser: None opens one where a person sits before it.

    `file` is the campaign's, for the commands that come next.

    Raises:
        UserError: A port is taken, nothing is to be reviewed, a public host without tokens; says what to do.
        VouchError: A server or the database does not start, or keeps ending.
    """
    own = own_tokens(options.reviewers, options.token_file, os.environ)
    options.check(own is not None)
    tokens = own or draw_tokens(options.reviewers)
    say = partial(output.say, terminal.remarks())
    queue = queue_id(campaign)
    current_of(open_workspace(campaign.workspace), campaign.run.name)  # without labels nothing need be started
    with ExitStack() as stack:
        stack.enter_context(_end_once(say))
        sockets = stack.enter_context(reserved(queue, options))
        say("starting the review database")
        database = stack.enter_context(review_database(campaign))
        if risk := version_risk(database.version):
            say(risk)
        say("starting FiftyOne, which takes some seconds")

        def prepare() -> AfterReview:
            _prepare(campaign, queue, database, options.reviewers, minutes, say)
            named = shlex.quote(str(file))
            commands = (
                (f"vouch certify {named}", "computes which precision the answers certify, or how many more are needed"),
                (f"vouch apply {named}", "accepts labels by what was certified"),
                (f"vouch export {named}", "writes the data set, with what people corrected"),
            )
            return AfterReview(_certified(campaign), commands)

        try:
            with served(campaign, queue, database, options, tokens, log_path().parent, prepare, sockets) as servers:
                # The user's own tokens outlive the review: they are neither printed nor among a browser's arguments.
                shown = {} if own else tokens
                _announce(terminal, servers, options, shown, as_json=as_json)
                if is_seen(terminal, as_json=as_json) if open_browser is None else open_browser:
                    webbrowser.open(_address(servers[0], options, shown.get(servers[0].reviewer)))
                keep_alive(servers, database, say)
        except BaseException as error:
            pulled = _pull(campaign, queue, database)
            if pulled is not None and isinstance(error, KeyboardInterrupt | SystemExit):
                answer(terminal, pulled, as_json)
            if not isinstance(error, KeyboardInterrupt):  # that is how a review ends
                raise


def _certified(campaign: Campaign) -> str:
    """Say what stands certified before the review; its own answers certify nothing before `vouch certify`."""
    from vouch_labels.tasks.certify.active import find_policy
    from vouch_labels.tasks.policy import accepts

    try:
        policy = find_policy(campaign, open_store(campaign.workspace)).policy
    except UserError:
        return "Nothing is certified now."
    found = policy.certification
    if found is None or found.simulated or not accepts(policy):
        return "Nothing is certified yet."
    return (
        f"When this review started, policy {policy.version} certified for {found.gate} labels a precision of "
        f"{found.precision:g} or more, at a confidence of {found.confidence:g}."
    )


def is_seen(terminal: Terminal, *, as_json: bool) -> bool:
    """Whether a person sits at this terminal and has a display, so that a browser may open by itself."""
    display = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display) and not as_json and terminal.out.isatty()


def _prepare(
    campaign: Campaign,
    queue: str,
    database: DatabaseUse,
    reviewers: Sequence[str],
    minutes: float,
    say: Callable[[str], None],
) -> None:
    """Have something in the queue: what waits for an answer of these reviewers, else the next stage, planned now."""
    workspace = open_store(campaign.workspace)
    # Answers that a killed review left behind count before anything more is asked.
    pulled = _pull(campaign, queue, database)
    if pulled is not None and pulled.verdicts:
        say(f"{plural(pulled.verdicts, 'verdict')} of an earlier review came into the workspace")
    filled = fill_queue(campaign, database.uri) if read_plans(workspace, campaign.run.name) else None
    left = Left(items=0, second=0) if filled is None else _left(database, queue, reviewers)
    if left.second:
        waiting = plural(left.second, "item waits", "items wait")
        say(f"{waiting} for a second person: vouch review CAMPAIGN --reviewer NAME")
    if filled is None or not left.items:
        # It takes a second to import, and is seldom needed.
        from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews

        planned = plan_reviews(campaign, ReviewRequest(minutes=minutes))
        say(f"nothing waited for an answer, so review plan {planned.plan.number} was made:")
        for line in planned.words:
            say(f"- {line}")
        say(planned.to_answer())
        filled = fill_queue(campaign, database.uri)
        left = _left(database, queue, reviewers)
    for line in filled.lines:
        say(line)
    say(f"{plural(left.items, 'item is', 'items are')} in the queue, {filled.added:,} new")


def _left(database: DatabaseUse, queue: str, reviewers: Sequence[str]) -> Left:
    with Queue.open(database.uri, queue) as opened:
        return left_for(opened, reviewers)


def _pull(campaign: Campaign, queue: str, database: DatabaseUse) -> PullOutcome | None:
    """Bring what was answered into the workspace; None while there is no queue."""
    if not is_filled(database.uri, queue):
        return None
    return pull_once(database.uri, campaign)


def _announce(
    terminal: Terminal,
    servers: Sequence[ReviewerServer],
    options: ServeOptions,
    tokens: Mapping[str, str],
    *,
    as_json: bool,
) -> None:
    addresses = {one.reviewer: _address(one, options, tokens.get(one.reviewer)) for one in servers}
    if as_json:
        for one in servers:
            line = {"reviewer": one.reviewer, "url": addresses[one.reviewer], "pid": one.pid}
            print_json(terminal, line | {"log": str(one.log)})
    else:
        show(terminal.results(), announcement(addresses, has_own_tokens=not tokens))


def announcement(addresses: Mapping[str, str], *, has_own_tokens: bool) -> list[str]:
    """Tell where each reviewer works, the keys, and how to end; the user's own tokens are in no address."""
    tokens = (
        "each page asks for the reviewer's own token"
        if has_own_tokens
        else "whoever has an address can answer as that reviewer: give it to nobody else"
    )
    end = "Ctrl-C ends the review: open batches are given back, and the answers go into the workspace"
    return [*(f"{name}: {address}" for name, address in addresses.items()), tokens, *KEYS, end]


def _address(server: ReviewerServer, options: ServeOptions, token: str | None) -> str:
    """The address to open; with the token only if it was drawn here."""
    host = options.names[0] if options.names else "127.0.0.1" if options.host in WILDCARDS else options.host
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.port}/" + (f"?token={quote(token)}" if token else "")


@contextmanager
def _end_once(say: Callable[[str], None]) -> Iterator[None]:
    """End on the first Ctrl-C or another signal to end, and ignore those that follow."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        say("ending the review: open batches are given back, servers stopped, answers brought into the workspace")
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
