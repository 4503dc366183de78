"""Serving reviewers: options, ports, tokens, servers that die; and answers pulled meanwhile."""

import socket
import threading
from contextlib import ExitStack, suppress

import pytest

from vouch_labels.review_ui.queue import answers
from vouch_labels.review_ui.server import serve
from vouch_labels.review_ui.server.answers import pull_once
from vouch_labels.review_ui.server.mongod import DatabaseUse
from vouch_labels.review_ui.server.process import server_environment
from vouch_labels.review_ui.server.serve import (
    MOST_RESTARTS,
    VARIABLE,
    ServeOptions,
    bind,
    draw_tokens,
    keep_alive,
    own_tokens,
    port_of,
)
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.tasks.reviews.verdicts import read_verdicts


def options(**values) -> ServeOptions:
    return ServeOptions(**({"reviewers": ("ann",)} | values))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "review.example.org"])
def test_a_host_that_others_reach_needs_tokens_of_the_users_own(host):
    with pytest.raises(UserError, match="--token-file"):
        options(host=host, names=("a.example",)).check(has_own_tokens=False)
    options(host=host, names=("a.example",)).check(has_own_tokens=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_does_not(host):
    options(host=host).check(has_own_tokens=False)


def test_all_addresses_have_no_name():
    with pytest.raises(UserError, match="--name"):
        options(host="0.0.0.0").check(has_own_tokens=True)
    assert options(host="0.0.0.0", names=("a.example",)).hosts == ("a.example",)
    assert options(host="192.168.1.2").hosts == ("192.168.1.2",)


def test_a_header_is_believed_from_a_proxy_alone():
    with pytest.raises(UserError, match="--trusted-proxy"):
        options(trust_header="X-User").check(has_own_tokens=False)
    options(trust_header="X-User", trusted_proxies=("10.0.0.1",)).check(has_own_tokens=False)


def test_a_proxy_may_name_the_client_and_not_the_reviewer():
    options(trusted_proxies=("10.0.0.1",)).check(has_own_tokens=False)


def test_a_proxy_is_an_address_or_a_network():
    with pytest.raises(UserError, match="no address or network"):
        options(trusted_proxies=("proxy.example",)).check(has_own_tokens=False)


def test_a_servers_environment_has_its_own_settings_and_no_secret_of_ours():
    outer = {
        "PATH": "/bin", "FIFTYONE_PLUGINS_DIR": "/mine", "FIFTYONE_DATABASE_NAME": "other",
        "VOUCH_REVIEW_TOKEN": "secret", "VOUCH_MONGODB_URI": "mongodb://a:secret@h", "FIFTYONE_ALLOWED_ORIGINS": "*",
    }  # fmt: skip
    found = server_environment(outer, "mongodb://127.0.0.1:1", "q", "ann", 25)
    assert found["PATH"] == "/bin"
    assert found["FIFTYONE_DATABASE_NAME"] == "other"
    assert found["FIFTYONE_ALLOWED_ORIGINS"] == ""
    assert found["FIFTYONE_DO_NOT_TRACK"] == "true"
    assert found["FIFTYONE_PLUGINS_DIR"].endswith("review_ui/plugin")
    assert (found["VOUCH_REVIEW_QUEUE"], found["VOUCH_REVIEW_REVIEWER"], found["VOUCH_REVIEW_BATCH"]) == (
        "q",
        "ann",
        "25",
    )
    assert not any("secret" in value for value in found.values())


@pytest.fixture
def taken():
    """A port that is in use; the one below it is free."""
    with ExitStack() as stack:
        while True:
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with suppress(OSError), socket.socket() as below:
                below.bind(("127.0.0.1", port - 1))
                break
        one.listen()
        yield port


def test_a_port_that_is_taken_is_reported_in_one_line(taken):
    with pytest.raises(UserError, match=f"port {taken} is taken; choose another with --port"):
        bind("127.0.0.1", taken, 1)


def test_nothing_stays_bound_when_one_of_several_is_taken(taken):
    with pytest.raises(UserError, match="is taken"):
        bind("127.0.0.1", taken - 1, 2)
    for one in bind("127.0.0.1", taken - 1, 1):
        one.close()


def test_free_ports_are_found_beside_taken_ones(taken, monkeypatch):
    monkeypatch.setattr(serve, "FIRST", taken)
    found = bind("127.0.0.1", None, 2)
    numbers = [port_of(one) for one in found]
    for one in found:
        one.close()
    assert taken not in numbers
    assert numbers[0] != numbers[1]


def test_none_is_left(taken, monkeypatch):
    monkeypatch.setattr(serve, "FIRST", taken)
    monkeypatch.setattr(serve, "TRIED", 1)
    with pytest.raises(UserError, match="name a free one with --port"):
        bind("127.0.0.1", None, 1)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70_000, "is no port"),
        ("no.such.host.invalid", 5151, "cannot find the host"),
        ("192.0.2.1", 5151, "--host"),
    ],
)
def test_what_cannot_be_bound_to(host, port, message):
    with pytest.raises(UserError, match=message):
        bind(host, port, 1)


LONG = "x" * 20


def test_drawn_tokens_are_long_and_differ():
    found = draw_tokens(["ann", "ben"])
    assert set(found) == {"ann", "ben"}
    assert found["ann"] != found["ben"]
    assert all(len(token) >= 40 for token in found.values())


def test_none_are_set():
    assert own_tokens(["ann"], None, {}) is None


def test_of_the_environment():
    assert own_tokens(["ann"], None, {VARIABLE: f"{LONG}\n"}) == {"ann": LONG}
    with pytest.raises(UserError, match="one reviewer's token"):
        own_tokens(["ann", "ben"], None, {VARIABLE: LONG})


@pytest.mark.parametrize(
    ("text", "reviewers", "found"),
    [
        (LONG, ["ann"], {"ann": LONG}),
        (
            f"# mine\n\nann {LONG}\nben\t{LONG}2\nann b {LONG}3",
            ["ann b", "ben"],
            {"ann b": f"{LONG}3", "ben": f"{LONG}2"},
        ),
    ],
)
def test_of_a_file(tmp_path, text, reviewers, found):
    path = tmp_path / "tokens"
    path.write_text(text)
    assert own_tokens(reviewers, path, {VARIABLE: "y" * 20}) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"ben {LONG}", "no token of 'ann'"),
        ("ann short-one", "shorter than 16"),
        (f"{LONG}\nann {LONG}", "token 1 of .* has no name"),
        ("", "no token of 'ann'"),
    ],
)
def test_what_is_wrong_with_a_file_is_reported_without_a_token(tmp_path, text, message):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        own_tokens(["ann"], path, {})
    assert LONG not in str(error.value)
    assert "short-one" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot read the tokens"):
        own_tokens(["ann"], tmp_path / "none", {})


class EnoughError(Exception):
    """Ends a watch that has no end."""


class Server:
    """Dies as often as it is set to, and then fails to start so many times: it ends, or hangs."""

    log = "the.log"

    def __init__(self, reviewer, deaths, fails=0, hangs=False):
        self.reviewer, self.deaths, self.fails, self.hangs = reviewer, deaths, fails, hangs
        self.hangs_later = 0
        """How often it will run and give no sign."""
        self.runs, self.answers, self.stopped, self.starts = True, True, 0, 0

    def has_died(self):
        if self.deaths and self.answers:
            self.deaths -= 1
            self.runs = self.answers = False
        return not self.runs

    def has_hung(self):
        if self.hangs_later and self.answers:
            self.hangs_later -= 1
            self.answers = False
            return True
        return False

    def stop(self):
        self.stopped += 1
        self.runs = self.answers = False

    def start(self):
        assert not self.runs
        self.starts += 1
        self.answers = not self.fails
        self.runs = self.answers or self.hangs
        self.fails -= not self.answers

    def send_settings(self):
        pass

    def wait(self):
        if not self.answers:
            raise VouchError(f"the review server of {self.reviewer} ended at its start")


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("vouch_labels.review_ui.server.serve.CHECK_S", 0)


def watch(*servers, checks=50):
    """The messages of so many checks."""
    messages, left = [], iter(range(checks))

    def revive():
        if next(left, None) is None:
            raise EnoughError
        return False

    with pytest.raises(EnoughError):
        keep_alive(servers, DatabaseUse("", revive), messages.append)
    return messages


@pytest.mark.usefixtures("at_once")
def test_what_died_runs_again():
    ann, ben = Server("ann", 2), Server("ben", 0)
    messages = watch(ann, ben)
    assert [message.partition(" had ended")[0] for message in messages] == ["the server of ann"] * 2
    assert ann.answers
    assert ben.stopped == 0


@pytest.mark.usefixtures("at_once")
def test_what_runs_and_gives_no_sign_is_started_again():
    ann, ben = Server("ann", 0), Server("ben", 0)
    ann.hangs_later = 2
    messages = watch(ann, ben)
    assert [message.partition("; it runs again")[0] for message in messages] == ["the server of ann hung"] * 2
    assert (ann.stopped, ann.answers, ben.stopped) == (2, True, 0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("deaths", "fails"), [(1, 100), (100, 0), (100, 2)])
def test_what_keeps_dying_does_not_end_the_review_of_others(deaths, fails):
    ann, ben = Server("ann", MOST_RESTARTS), Server("ben", deaths, fails)
    messages = watch(ann, ben)
    assert ann.answers
    [given_up] = [message for message in messages if "the others go on" in message]
    assert "of ben" in given_up
    assert not ben.runs
    assert ben.starts == MOST_RESTARTS


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("hangs", [False, True])
def test_what_does_not_start_is_tried_again(hangs):
    ann, ben = Server("ann", 0), Server("ben", 1, MOST_RESTARTS - 1, hangs)
    messages = watch(ann, ben)
    assert ["it is tried again" in message for message in messages] == [True] * (MOST_RESTARTS - 1) + [False]
    assert "the server of ben had ended; it runs again" in messages[-1]
    assert ben.answers


@pytest.mark.usefixtures("at_once")
def test_what_fails_slowly_is_not_tried_for_ever(monkeypatch):
    monkeypatch.setattr("vouch_labels.review_ui.server.serve.RESTARTS_WITHIN_S", 0)
    ben = Server("ben", 1, 100, hangs=True)
    watch(Server("ann", 0), ben)
    assert (ben.starts, ben.runs) == (MOST_RESTARTS, False)


@pytest.mark.usefixtures("at_once")
def test_failures_with_a_success_in_between_are_not_in_a_row(monkeypatch):
    monkeypatch.setattr("vouch_labels.review_ui.server.serve.RESTARTS_WITHIN_S", 0)
    ben = Server("ben", 2, MOST_RESTARTS - 1)
    start = ben.start

    def start_or_fail_later():
        start()
        if ben.answers and ben.deaths:
            ben.fails = MOST_RESTARTS - 1

    ben.start = start_or_fail_later  # type: ignore[method-assign]
    watch(Server("ann", 0), ben)
    assert (ben.starts, ben.answers) == (2 * MOST_RESTARTS, True)


@pytest.mark.usefixtures("at_once")
def test_a_database_that_died_with_a_server_is_revived_before_the_next_try():
    """Without it no start can succeed."""
    ben, messages = Server("ben", 1, 100), []

    def revive():
        if not ben.starts:
            return False
        if ben.answers:
            raise EnoughError
        ben.fails = 0
        return True

    with pytest.raises(EnoughError):
        keep_alive([ben], DatabaseUse("", revive), messages.append)
    failed, revived, started = messages
    assert "it is tried again" in failed
    assert "database had ended" in revived
    assert "runs again" in started
    assert ben.starts == 2


@pytest.mark.usefixtures("at_once")
def test_when_none_is_left_the_review_ends():
    ann, ben = Server("ann", 100), Server("ben", 1, 100)
    messages = []
    with pytest.raises(VouchError, match=r"server of ann keeps ending; the.log says why"):
        keep_alive([ann, ben], DatabaseUse("", lambda: False), messages.append)
    assert sum("runs again" in message for message in messages) == MOST_RESTARTS


@pytest.mark.usefixtures("at_once")
def test_a_database_that_died_is_reported():
    messages = []

    def stop(message):
        messages.append(message)
        raise EnoughError

    with pytest.raises(EnoughError):
        keep_alive([Server("ann", 0)], DatabaseUse("", lambda: True), stop)
    assert "nothing that was submitted is lost" in messages[0]


# The queue asked from outside: two who pull at once bring every verdict once.


@pytest.fixture
def own_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def answer(queue, rows, count):
    for item in queue.take("ann", count):
        queue.submit("ann", item.id, item.epoch, rows(item), 1.0)


@pytest.mark.usefixtures("own_data_folder")
def test_who_pulls_beside_another_waits_and_writes_nothing_twice(planned, rows, monkeypatch):
    found, others = [], []

    def read(workspace):
        verdicts = read_verdicts(workspace)
        if not others:
            others.append(threading.Thread(target=lambda: found.append(pull_once(planned.uri, planned.campaign))))
            answer(queue, rows, 2)
            others[0].start()
            # Long enough for one that does not wait.
            others[0].join(1.0)
        return verdicts

    monkeypatch.setattr(answers, "read_verdicts", read)
    with planned.open() as queue:
        answer(queue, rows, 5)
        assert pull_once(planned.uri, planned.campaign).verdicts == 5
    others[0].join()
    assert found[0].verdicts == 2
    assert read_verdicts(planned.workspace).num_rows == 7


@pytest.mark.usefixtures("own_data_folder")
def test_answers_are_pulled_where_no_file_can_be_locked(planned, rows, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with planned.open() as queue:
        answer(queue, rows, 1)
    assert pull_once(planned.uri, planned.campaign).verdicts == 1
