"""`vouch review`, `vouch plan-reviews` and `vouch verdicts`."""

import csv
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
import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as mask_utils

from tests.processes import HANG_S, running, until
from vouch_labels.flows.console.output import Terminal
from vouch_labels.flows.review import _prepare, announcement, is_seen
from vouch_labels.review_ui.queue.database import mongod
from vouch_labels.review_ui.queue.fill import fill_queue, queue_id
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import left_for
from vouch_labels.review_ui.server.mongod import review_database
from vouch_labels.review_ui.server.serve import ServeOptions, reserved
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.labels.arrays import current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import read_plans, write_plan
from vouch_labels.tasks.reviews.verdicts import read_verdicts
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


@pytest.fixture
def labelled(tmp_path, make_images, write_campaign, make_campaign, label):
    make_images(tmp_path / "images", 6)
    label(make_campaign())
    return write_campaign()


@pytest.fixture
def ids(labelled, make_campaign):
    workspace = open_store(make_campaign().workspace)
    with Ledger.load(workspace, "main") as ledger:
        return read_run_labels(workspace, "main", ledger, current_of(workspace, "main")).label_ids.to_pylist()


@pytest.fixture
def answered(tmp_path, ids):
    path = tmp_path / "answered.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label_id", "verdict", "reviewer", "seconds"])
        rows.writerow([ids[0], "correct", "ann", 2])
        rows.writerow([ids[0], "Bad Box", "bob", 3])
        rows.writerow([ids[1], "correct", "ann", 1])
        rows.writerow([ids[1], "correct", "bob", 1])
        rows.writerow(["elsewhere", "not-an-object", "", ""])
    return path


def test_in_and_told(vouch, labelled, answered, ids):
    answer = vouch("verdicts", labelled, answered, "--reviewer", "eve")
    assert answer.code == 0, answer.err
    assert f"{answered}: 5 of 5 rows imported\n" in answer.out
    assert "on labels that this run does not have (other models, or another run)" in answer.out
    assert (
        "0 of 5 rows imported, 5 were there already" in vouch("verdicts", labelled, answered, "--reviewer", "eve").out
    )
    found = json.loads(vouch("verdicts", labelled, "--json").out)
    assert (found["verdicts"], found["labels"], found["unknown_labels"]) == (5, 2, 1)
    assert found["answers"] == {"correct": 1, "disputed": 1}
    assert found["disputed"] == [ids[0]]
    assert (found["doubly_reviewed"], found["agreement"], found["seconds"]) == (2, 0.5, 7)
    assert found["reviewers"]["ann"] == {"labels": 2, "correct": 2, "images": 0, "seconds": 3}
    assert sorted(found["reviewers"]) == ["ann", "bob", "eve"]
    text = vouch("verdicts", labelled).out
    assert found["second_readings"] == {
        "labels": 2, "wrong": 1, "missed": 1, "confidence": 0.9,
        "share": 1.0, "low": pytest.approx(0.05 / 1.95), "high": 1.0,
    }  # fmt: skip
    for words in (
        "2 labels reviewed",
        "50% agreement",
        "two people read 2 labels, 1 of them wrong: one of the two missed 1;",
        "1 label disputed",
        ids[0],
        "bob",
    ):
        assert words in text


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json", "jsonl"])
def test_out_and_in_again_changes_nothing(vouch, labelled, answered, tmp_path, suffix):
    vouch("verdicts", labelled, answered)
    path = tmp_path / f"all.{suffix}"
    assert json.loads(vouch("verdicts", labelled, "--export", path, "--json").out) == {"file": str(path), "rows": 5}
    (again,) = json.loads(vouch("verdicts", labelled, path, "--json").out)["files"]
    assert (again["imported"], again["known"]) == (0, 5)


def test_bad_rows(vouch, labelled, tmp_path, ids):
    path = tmp_path / "bad.csv"
    path.write_text(f"label_id,verdict\n{ids[0]},corect\n{ids[1]},correct\n")
    answer = vouch("verdicts", labelled, path)
    assert answer.code == 2
    assert answer.err.startswith(f"vouch: nothing was imported: 1 of 2 rows of {path} is invalid: fix them")
    assert f"{path}: row 2: 'corect' is no verdict; did you mean correct?" in answer.err
    assert "there are no verdicts yet" in vouch("verdicts", labelled).out
    answer = vouch("verdicts", labelled, path, "--skip-bad")
    assert "1 invalid row left out, with reasons: " in answer.out
    assert (tmp_path / "bad-refused.csv").is_file()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["x.csv", "--export", "y.csv"], "ask for one at a time"),
        (["--plan", "1"], "--plan says whose tasks to write; add --tasks FILE"),
        (["--skip-bad"], "are about importing; name the FILE to import"),
        (["--export", "y.txt"], "cannot tell the format"),
        (["--tasks", "y.csv"], "has no review plan yet; use `vouch plan-reviews` first"),
        (["none.csv"], "cannot read none.csv"),
    ],
)
def test_what_is_asked_wrong(vouch, labelled, words, problem):
    answer = vouch("verdicts", labelled, *words)
    assert answer.code == 2
    assert problem in answer.err
    assert answer.err.count("\n") == 1


def test_tasks_filled_in_come_back(vouch, labelled, make_campaign, ids, tmp_path):
    rows = [
        {"label_id": ids[0], "class_name": "cat", "x0": 1.0, "y0": 2.0, "x1": 30.0, "y1": 40.0, "purpose": "audit"},
        {"label_id": ids[1], "class_name": "cat", "x0": 1.0, "y0": 2.0, "x1": 30.0, "y1": 40.0, "purpose": "fit"},
        {"class_name": "dog", "purpose": "possible_miss"},
    ]
    full = [
        dict.fromkeys(TASKS.names) | {"place": place, "key": "000.png", "seconds": 1.0} | row
        for place, row in enumerate(rows)
    ]
    plan = ReviewPlan(
        number=1, run="main", created="2026-03-04T05:06:07+00:00", inputs={}, precision=0.95, confidence=0.9,
        gate="delivered", seed=0, fit_share=0.5, counts={}, seconds=0, tasks_sha256="",
    )  # fmt: skip
    workspace = open_store(make_campaign().workspace)
    write_plan(workspace, "main", plan, pa.Table.from_pylist(full, schema=TASKS))
    path = tmp_path / "tasks.csv"
    assert vouch("verdicts", labelled, "--tasks", path).out == f"3 open tasks in {path}\n"
    text = path.read_text()
    assert "audit" not in text
    with path.open(newline="") as file:
        sheet = list(csv.DictReader(file))
    mask = np.zeros((64, 96), np.uint8, order="F")
    mask[2:9, 3:7] = 1
    counts = mask_utils.encode(mask)["counts"]
    sheet[0] |= {"verdict": "Bad Box", "x0": 3, "y0": 2, "x1": 7, "y1": 9, "rle_counts": counts.decode()}
    sheet[2]["verdict"] = "checked"
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(sheet[0]))
        out.writeheader()
        out.writerows(sheet)
    answer = vouch("verdicts", labelled, path)
    assert "2 of 3 rows imported, 1 without a verdict" in answer.out, answer.err
    said = read_verdicts(workspace).to_pylist()
    assert {(row["verdict"], row["class_name"], row["x0"], row["rle_counts"]) for row in said} == {
        ("bad_box", None, 3, counts),
        ("checked", "dog", None, None),
    }
    assert vouch("verdicts", labelled, "--tasks", path).out == f"1 open tasks in {path}\n"
