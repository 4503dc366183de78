"""Two reviewers at once, each on a guarded server of their own, answer all that a queue holds."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fake_campaign import write_campaign
from tests.review_ui.server.conftest import TOKENS
from tests.waiting import HANG_S
from vouch_labels.review_ui.queue.sync import pull_queue
from vouch_labels.review_ui.server.mongod import DatabaseUse
from vouch_labels.review_ui.server.serve import ServeOptions, served
from vouch_labels.tasks.reviews.resolve import IN_DISPUTE, resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.store.open import open_store

ITEMS = 400
QUEUE = "0123456789ab"


def answer_all(name: str, address: str) -> list[str]:
    """Take batches and answer them as the App does, until nothing is left; gives the items."""
    answered: list[str] = []
    with httpx.Client(base_url=address, headers={"origin": address}, timeout=HANG_S) as client:
        assert client.get("/", params={"token": TOKENS[name]}).status_code == 303

        def run(operator, **params):
            body = {"operator_uri": f"@vouch/review/{operator}", "params": params}
            response = client.post("/operators/execute", json=body)
            assert response.status_code == 200, response.text
            result = response.json()["result"]
            assert result.get("error") is None, result
            return result

        while items := run("take_batch")["items"]:
            for one in items:
                result = run(("submit", "reject")[len(answered) % 2], item=one["item"], seconds=1.0)
                assert one["item"] not in {one["item"] for one in result["items"]}
                answered.append(one["item"])
            if len(answered) == ITEMS // 2:
                break
    return answered


@pytest.mark.slow
def test_two_at_once_answer_every_item_once(make_queue, uri, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "images").mkdir()
    campaign = write_campaign(tmp_path, review={"batch": 20})
    queue = make_queue(ITEMS, name=QUEUE)
    options = ServeOptions(reviewers=tuple(TOKENS))
    with served(campaign, QUEUE, DatabaseUse(uri, lambda: False), options, TOKENS, tmp_path / "logs") as sessions:
        with ThreadPoolExecutor(2) as pool:
            working = [pool.submit(answer_all, one.reviewer, f"http://127.0.0.1:{one.port}") for one in sessions]
        ann, ben = (one.result() for one in working)
        assert queue.take("cem", ITEMS) == []
    assert (len(ann), len(ben)) == (ITEMS // 2, ITEMS // 2)
    assert len({*ann, *ben}) == ITEMS

    workspace = open_store(campaign.workspace)
    pulled = pull_queue(uri, QUEUE, workspace)
    assert (pulled.verdicts, pulled.late, pulled.known) == (ITEMS, 0, 0)
    assert pull_queue(uri, QUEUE, workspace).verdicts == 0
    rows = read_verdicts(workspace).to_pylist()
    assert len(rows) == ITEMS
    given = {row["label_id"]: (row["reviewer"], row["verdict"]) for row in rows}
    verdicts = ("correct", "not_an_object")
    expected = {
        item: (name, verdicts[number % 2])
        for name, items in (("ann", ann), ("ben", ben))
        for number, item in enumerate(items)
    }
    assert given == expected
    times = {name: [row["reviewed_at"] for row in rows if row["reviewer"] == name] for name in TOKENS}
    assert max(min(found) for found in times.values()) < min(max(found) for found in times.values())


def test_a_label_that_another_has_read_looks_as_it_did_to_the_first_and_both_answers_are_kept(review):
    items = review.ann.database["vouch_items"]
    assert set(items.distinct("purpose", {"wanted": 2})) == {"fit"}, "two serve, so some are read twice"
    read = items.find_one_and_update({"wanted": 2}, {"$set": {"place": -1}})["item"]

    def seen_and_answered(reviewer, operator):
        with reviewer.client() as client:
            taken = reviewer.run(client, "take_batch").json()["result"]["items"]
            summary = next(one for one in taken if one["item"] == read)
            sample = next(one for one in reviewer.samples() if one["item"] == read)
            assert "error" not in reviewer.run(client, operator, item=read, seconds=1.0).json()["result"]
        own = ("_id", "_rand", "_dataset_id", "created_at", "last_modified_at")
        return summary | {"sample": ""}, {name: value for name, value in sample.items() if name not in own}

    assert seen_and_answered(review.ann, "submit") == seen_and_answered(review.ben, "reject")
    workspace = open_store(review.campaign.workspace)
    pull_queue(review.uri, review.ann.queue, workspace)
    rows = [row for row in read_verdicts(workspace).to_pylist() if row["label_id"] == read]
    assert {row["reviewer"]: row["verdict"] for row in rows} == {"ann": "correct", "ben": "not_an_object"}
    assert resolve(read_verdicts(workspace)).wrong_of([read]).tolist() == [IN_DISPUTE]
