"""`vouch review`, as a process of its own with an embedded database: reviewed in, killed in the middle, ended."""

import io
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.flows.cli.review_process import running
from tests.waiting import HANG_S, until
from vouch_labels.flows.console.output import Terminal
from vouch_labels.flows.review import _prepare, announcement, is_seen
from vouch_labels.review_ui.queue.database import mongod
from vouch_labels.review_ui.queue.fill import fill_queue, queue_id
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import left_for
from vouch_labels.review_ui.server.mongod import review_database
from vouch_labels.review_ui.server.serve import ServeOptions, reserved
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.store.lock import ProcessId, is_alive, process_id
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def campaign(make_images, make_campaign, write_campaign, label, tmp_path, monkeypatch):
    """A campaign file whose 30 images are labelled, and folders of this test's own for all that a review keeps."""
    for name in ("XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("VOUCH_LOG", "VOUCH_MONGODB_URI", "VOUCH_REVIEW_TOKEN", "FIFTYONE_DATABASE_NAME"):
        monkeypatch.delenv(name, raising=False)
    make_images(tmp_path / "images", 30)
    sections = {"routing": {"precision": 0.7, "confidence": 0.8}, "review": {"batch": 3}}
    label(make_campaign(**sections))
    return write_campaign(**sections)


def database(campaign: Path) -> ProcessId:
    """The embedded database's process."""
    queue = queue_id(load_campaign(campaign))
    found = json.loads((Path(os.environ["XDG_DATA_HOME"]) / "vouch/review" / queue / "server.json").read_text())
    return ProcessId(found["place"], found["pid"], found["started"])


def is_gone(client: httpx.Client) -> bool:
    """Whether a server has been killed: it lets the connection go, and a new one is taken by the next server."""
    try:
        return client.get("/fiftyone").status_code != 200
    except httpx.TransportError:
        return True


@contextmanager
def browser(url: str) -> Iterator[httpx.Client]:
    base = url.partition("/?")[0]
    with httpx.Client(base_url=base, headers={"origin": base}, timeout=HANG_S) as client:
        assert client.get(url).status_code == 303
        yield client


def run(client: httpx.Client, operator: str, **params) -> dict:
    answer = client.post("/operators/execute", json={"operator_uri": f"@vouch/review/{operator}", "params": params})
    assert answer.status_code == 200, answer.text
    said = answer.json()["result"]
    assert said.get("error") is None, said
    return said


class Screen(io.StringIO):
    """A stream that leads to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "as_json", "opens"),
    [
        (Screen, {"DISPLAY": ":0"}, False, True),
        (Screen, {"WAYLAND_DISPLAY": "wayland-0"}, False, True),
        (Screen, {}, False, False),
        (Screen, {"DISPLAY": ""}, False, False),
        (Screen, {"DISPLAY": ":0"}, True, False),
        (io.StringIO, {"DISPLAY": ":0"}, False, False),
    ],
)
def test_a_browser_opens_by_itself_where_a_person_sees_it(monkeypatch, stream, environment, as_json, opens):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_seen(Terminal(stream(), io.StringIO()), as_json=as_json) is opens


@pytest.mark.parametrize(
    ("words", "opened"), [(("--open",), True), (("--no-open",), False), ((), None)], ids=["open", "no-open", "neither"]
)
def test_what_the_user_says_of_the_browser_counts(vouch, campaign, monkeypatch, words, opened):
    asked = []
    monkeypatch.setattr("vouch_labels.flows.review.serve", lambda *_, open_browser, as_json: asked.append(open_browser))
    assert vouch("review", campaign, *words).code == 0
    assert asked == [opened]


@pytest.mark.mongod
@pytest.mark.slow
def test_a_review_survives_kills_and_leaves_nothing_behind(vouch, campaign):
    with running(campaign, "--reviewer", "ann") as review:
        session = review.line()
        server, mongod = process_id(session["pid"]), database(campaign)
        with browser(session["url"]) as client:
            items = run(client, "take_batch")["items"]
            assert len(items) == 3
            run(client, "submit", item=items[0]["item"], seconds=1.5)
            os.kill(mongod.pid, signal.SIGKILL)
            until(lambda: database(campaign) != mongod)
            run(client, "submit", item=items[1]["item"], seconds=1.5)
            os.kill(server.pid, signal.SIGKILL)
            until(lambda: is_gone(client))
            # The socket stays open, so who asks meanwhile waits; the session goes on.
            assert len(run(client, "session")["items"]) == 1
        mongod = database(campaign)
        code, said = review.end()
    assert code == 0, said
    assert "the review database had ended" in said
    assert "the server of ann had ended" in said
    assert json.loads(next(line for line in said.splitlines() if line.startswith("{")))["verdicts"] == 2
    assert not is_alive(mongod)
    found = vouch("review", campaign, "--status", "--json")
    assert found.code == 0, found.err
    status = json.loads(found.out)
    assert status["reviewers"]["ann"]["answered"] == 2
    assert status["purposes"]["fit"]["leased"] == 0
    assert status["unpulled"] == 0
    for left in (server, mongod):
        assert not is_alive(left)
    verdicts = vouch("verdicts", campaign, "--json")
    assert json.loads(verdicts.out)["verdicts"] == 2


@pytest.mark.mongod
@pytest.mark.slow
def test_what_a_killed_review_leaves_ends_or_is_used_again(vouch, campaign, tmp_path):
    with running(campaign, "--reviewer", "ann") as review:
        session = review.line()
        server, mongod = process_id(session["pid"]), database(campaign)
        with browser(session["url"]) as client:
            run(client, "submit", item=run(client, "take_batch")["items"][0]["item"])
        review.process.kill()
        review.process.communicate(timeout=HANG_S)
    until(lambda: not is_alive(server))
    assert is_alive(mongod)
    status = vouch("review", campaign, "--status")
    assert "1 answer is not in the workspace yet" in status.out
    assert not is_alive(mongod)  # the last one out stopped it
    exported = tmp_path / "answers.csv"
    assert "1 verdicts" in vouch("review", campaign, "--export", exported).out
    assert "1 new verdict of 1 answer came into the workspace" in vouch("review", campaign, "--pull").out
    assert "nothing new: 1 answer is in the workspace already" in vouch("review", campaign, "--pull").out
    assert vouch("review", campaign, "--import", exported).code == 0


@pytest.mark.mongod
@pytest.mark.slow
def test_a_token_of_ones_own_is_no_argument_of_the_browser(campaign, tmp_path, monkeypatch):
    told, tokens = tmp_path / "told", tmp_path / "tokens"
    tokens.write_text("token-of-ann-0123456789\n")
    monkeypatch.setenv("BROWSER", f'{sys.executable} -c \'import sys; open("{told}", "a").write(sys.argv[1])\' %s')
    with running(campaign, "--reviewer", "ann", "--open", "--token-file", str(tokens)) as review:
        url = review.line()["url"]
        until(lambda: told.exists() and told.read_text())
    assert told.read_text() == url
    assert "token-of-ann" not in url


@pytest.mark.parametrize("words", [("--status",), ("--pull",), ("--export", "answers.csv")])
def test_without_a_queue_it_says_what_starts_one(vouch, campaign, words):
    answer = vouch("review", campaign, *words)
    assert answer.code == 2
    assert "vouch review starts one" in answer.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--host", "0.0.0.0"), "--token-file"),
        (("--status", "--pull"), "one at a time"),
        (("--reviewer", "ann", "--reviewer", "ann"), "once"),
        (("--reviewer", " "), "needs a name"),
        (("--trust-header", "X-User"), "needs --trusted-proxy"),
        (("--token-file", "/nowhere/tokens"), "cannot read the tokens"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_started(vouch, campaign, words, says):
    answer = vouch("review", campaign, *words)
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not (Path(os.environ["XDG_DATA_HOME"]) / "vouch").exists()


def test_a_port_that_is_taken_is_said_before_anything_is_started(vouch, campaign):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = vouch("review", campaign, "--port", port)
    assert answer.code == 2
    assert answer.err == f"vouch: port {port} is taken; choose another with --port, or leave --port out\n"


def test_an_open_session_is_reported_before_anything_is_started(vouch, campaign):
    options = ServeOptions(reviewers=("ann",))
    with reserved(queue_id(load_campaign(campaign)), options):
        answer = vouch("review", campaign, "--reviewer", "ann")
    assert answer.code == 2
    assert answer.err.startswith("vouch: ann's session is open already")


def test_a_run_without_labels_is_said_before_anything_is_started(vouch, write_campaign, campaign, tmp_path):
    answer = vouch("review", write_campaign(workspace={"uri": str(tmp_path / "none")}))
    assert answer.code == 2
    assert "has no labels yet" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (Path(os.environ["XDG_DATA_HOME"]) / "vouch").exists()


@pytest.mark.mongod
@pytest.mark.slow
def test_a_terminated_review_counts_what_it_brought_in(campaign):
    with running(campaign, "--reviewer", "ann") as review:
        with browser(review.line()["url"]) as client:
            run(client, "submit", item=run(client, "take_batch")["items"][0]["item"])
        code, said = review.end(signal.SIGTERM)
    assert code == 143, said
    assert json.loads(next(line for line in said.splitlines() if line.startswith("{")))["verdicts"] == 1
    assert said.rstrip().endswith("vouch: terminated")


@pytest.fixture
def with_second_reviews(make_images, make_campaign, label, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    make_images(tmp_path / "images", 60)
    routing = {"precision": 0.7, "confidence": 0.8, "gate": "delivered", "missed": 0.0}
    found = make_campaign(routing=routing, review={"second_reviews": 0.5})
    label(found)
    return found


@pytest.mark.mongod
def test_what_waits_for_a_second_person_does_not_keep_the_next_stage_back(with_second_reviews, tmp_path, monkeypatch):
    campaign = with_second_reviews
    with mongod(tmp_path / "db") as uri:
        monkeypatch.setenv("VOUCH_MONGODB_URI", uri)
        plan_reviews(campaign, ReviewRequest(minutes=3))
        queue = fill_queue(campaign, uri).queue
        with Queue.open(uri, queue) as opened:
            for item in opened.take("ann", 1000):
                row = {"key": item.key, "label_id": item.label_id, "verdict": "correct"}
                opened.submit("ann", item.id, item.epoch, [row], 1.0)
            waiting = left_for(opened, ["ann"]).second
            assert waiting > 0
            with review_database(campaign) as database:
                said: list[str] = []
                _prepare(campaign, queue, database, ["ann", "bob"], 10, said.append)
                assert len(read_plans(open_store(campaign.workspace), campaign.run.name)) == 1
                assert said[-1] == f"{waiting} items are in the queue, 0 new"
                _prepare(campaign, queue, database, ["ann"], 10, said.append)
            assert len(read_plans(open_store(campaign.workspace), campaign.run.name)) == 2
            assert any(line.startswith(f"{waiting} items wait for a second person") for line in said)
            assert opened.take("ann", 1)


def test_reviewers_get_their_address_and_every_key():
    lines = announcement({"ann": "http://127.0.0.1:5151/?token=x"}, has_own_tokens=False)
    assert lines[0] == "ann: http://127.0.0.1:5151/?token=x"
    for key in ("T", "Enter", "1", "B", "N", "M", "D", "G", "S", "Z"):
        assert any(f"Alt+{key} " in line for line in lines)
    assert "each page asks for the reviewer's own token" in announcement({}, has_own_tokens=True)
