"""The flow that certifies: its result and its artifact.

The flow that takes up people's answers: pulled, certified, applied; what comes too early is said."""

import pytest

from vouch_labels.flows.artifacts import MOST_ROWS, markdown
from vouch_labels.flows.prefect_server import prepare_environment
from vouch_labels.review_ui.queue.database import mongod
from vouch_labels.review_ui.queue.fill import fill_queue
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.policy import Certified, Covered, Group, GroupCertificate, Reviewers
from vouch_labels.schemas.text import NONE, Table, count
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews

CERTIFICATE = GroupCertificate(
    labels=1000, accepted=600, reviewed=400, errors=8, limit=0.05, bound=0.034, p_value=0.01, delta=0.08, tested=(0.9,),
    accepted_precision=0.96, accepted_at_least=0.94, delivered_precision=0.98, delivered_at_least=0.966,
)  # fmt: skip
REFUSED = GroupCertificate(
    labels=90, accepted=0, reviewed=9, errors=0, limit=0.05, bound=0.3, p_value=0.6, delta=0.04, tested=(0.9,),
    refusal="too few", more_reviews=100,
)  # fmt: skip


COVERED = Covered(population="0a1b", labels=1090, images=400, plan=2, created="2026-01-01T00:00:00+00:00")


def result(**changes) -> Certified:
    values = {
        "run": "main", "workspace": "/w", "version": "certified-1-a", "precision": 0.95, "confidence": 0.9,
        "gate": "delivered", "look": 1, "delta": 0.08, "labels": 1500, "outside": 410, "accepted": 600,
        "groups": (
            Group(name="cat|s", classes=("cat",), p_correct=0.9, certificate=CERTIFICATE),
            Group(name="dog", classes=("dog",), certificate=REFUSED),
        ),
        "classes": (), "reviewers": Reviewers(), "simulated": False,
        "covers": (COVERED,),
    }  # fmt: skip
    return Certified(**(values | changes))


def test_the_certificates_as_markdown():
    text = markdown("Certification", result().blocks())
    assert r"| cat\|s | 400 | 8 | 3.4% | 5% | 0.900 | 60.0% | 96% (≥94%) | 98% (≥96.6%) |" in text
    assert "dog: not certified: too few" in text


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_refuses_as_the_command_does_and_shows_what_it_found(tmp_path, make_images, make_campaign, label):
    from prefect.client.orchestration import get_client

    from vouch_labels.flows.certify import show, vouch_certify

    make_images(tmp_path / "images", 2)
    label(make_campaign())
    with pytest.raises(UserError, match="there are no verdicts"):
        vouch_certify(str(tmp_path / "campaign.yaml"))
    show(result())
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC", "limit": 1}).json()
    assert found[0]["key"] == "vouch-certify"
    assert "| dog | 9 | 0 |" in found[0]["data"]


prepare_environment()


@pytest.fixture
def campaign(make_images, make_campaign, label, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("VOUCH_MONGODB_URI", raising=False)
    make_images(tmp_path / "images", 60)
    routing = {"precision": 0.7, "confidence": 0.8, "gate": "delivered", "missed": 0.0}
    found = make_campaign(routing=routing, run={"shard_size": 30, "retry_delay_s": 0})
    label(found)
    return found


def answer(campaign, uri):
    """Answer all that is asked, as a person would in the review session."""
    with Queue.open(uri, fill_queue(campaign, uri).queue) as queue:
        while items := queue.take("ann", 200):
            for item in items:
                row = {"key": item.key, "label_id": item.label_id, "verdict": "correct"}
                queue.submit("ann", item.id, item.epoch, [row], 1.0)


def test_without_a_queue_nothing_is_pulled_and_nothing_fails(campaign):
    from vouch_labels.flows.certify import pull_and_apply

    found = pull_and_apply(campaign)
    assert (found.pulled, found.certified, found.applied) == (None, None, None)
    assert "vouch review starts one" in found.words[0]
    assert "there are no verdicts" in found.words[1]


@pytest.mark.mongod
def test_from_answers_to_decisions(campaign, tmp_path, monkeypatch):
    from vouch_labels.flows.certify import pull_and_apply

    with mongod(tmp_path / "db") as uri:
        monkeypatch.setenv("VOUCH_MONGODB_URI", uri)
        plan_reviews(campaign, ReviewRequest(minutes=3))
        answer(campaign, uri)
        first = pull_and_apply(campaign)
        assert first.pulled is not None
        assert first.pulled.verdicts >= 40
        assert first.applied is None
        assert "no certification sample was drawn" in first.words[0]
        plan_reviews(campaign, ReviewRequest(minutes=30))
        answer(campaign, uri)
        second = pull_and_apply(campaign)
        assert second.certified is not None
        assert second.applied is not None
        assert second.applied.policy == second.certified.version
        assert second.applied.accepted > 0
        assert second.applied.export is not None
        again = pull_and_apply(campaign)
        assert again.pulled is not None
        assert again.pulled.verdicts == 0
        assert again.certified == second.certified.model_copy(update={"in_force": True})
        assert again.applied is not None
        assert again.applied.changed == 0
    text = markdown("", second.blocks())
    assert "new verdicts of" in text
    assert f"active policy: {second.applied.policy}" in text


def test_lines_and_tables_become_markdown_whatever_the_names():
    table = Table("by `class`", {"class": str, "labels": count}, [("cat|s", 1400), ("[dog](x)", None)])
    assert markdown("Run a_b", ["**no** markup", table]) == "\n\n".join(
        [
            r"# Run a\_b",
            r"\*\*no\*\* markup",
            r"**by \`class\`**",
            f"| class | labels |\n| --- | --- |\n| cat\\|s | 1,400 |\n| \\[dog\\](x) | {NONE} |",
        ]
    )


def test_long_tables_are_cut():
    rows = [(str(row),) for row in range(MOST_ROWS + 5)]
    text = markdown("", [Table("", {"row": str}, rows)])
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + MOST_ROWS
    assert text.endswith("\n\n5 more rows are not shown.")
