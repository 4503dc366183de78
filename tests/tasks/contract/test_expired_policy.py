import pytest

from schemas.errors import UserError
from tasks.contract.apply import apply_policy
from tasks.contract.run_labels import current_of, read_run_labels
from tasks.plan.ledger import Ledger
from tasks.reviews.plans import write_plan
from tasks.reviews.verdicts import write_verdicts
from tasks.route.policy import expired_policy, read_policy, write_policy
from tasks.store.open import open_store


@pytest.fixture
def audited(make_plan, make_verdicts):
    """Audit a policy twice, with half of the answers wrong."""

    def audit(workspace, version):
        for number in (1, 2):
            ids = [f"audit {number} {place}" for place in range(100)]
            tasks = {"purpose": ["audit"] * 100, "label_id": ids, "inclusion": [0.1] * 100}
            tasks |= {"p_correct": [0.9] * 100, "stratum": [0] * 100}
            strata = ({"name": "all", "size": 1000, "drawn": 100},)
            drawn = {"policy": version, "labels": 1000, "mean_p_correct": 0.9, "strata": strata}
            write_plan(workspace, "main", *make_plan(tasks, number=number, audit=drawn))
            write_verdicts(workspace, make_verdicts(ids, ["not_an_object", "correct"] * 50))

    return audit


def test_a_run_goes_on_and_accepts_nothing(make_images, make_campaign, label, certified, audited, tmp_path):
    make_images(tmp_path / "images", 5)
    campaign = make_campaign(routing={"gate": "accepted"})
    label(campaign)
    workspace = open_store(campaign.workspace)
    inputs = current_of(workspace, "main").inputs
    policy = certified({"cat": 0.0, "dog": 0.0}, version="certified-1-a", gate="accepted", inputs=inputs)
    write_policy(workspace, policy)
    assert apply_policy(campaign, policy.version, export=False).accepted > 0
    audited(workspace, policy.version)
    make_images(tmp_path / "images", 2, start=20)
    summary, markers = label(campaign)
    assert len(markers) == 3
    assert summary.policy == "expired-certified-1-a"
    assert "audits (2) say" in summary.policy_expired
    assert summary.policy_basis == "an expired certificate: everything goes to review"
    assert (summary.accepted, summary.accepts) == (0, False)
    assert summary.review == summary.labels > 0
    with Ledger.load(workspace, "main") as ledger:
        labels = read_run_labels(workspace, "main", ledger, current_of(workspace, "main"))
    assert (labels.p_correct >= 0).all()
    again, markers = label(campaign)
    assert (again.policy, markers) == (summary.policy, [])
    with pytest.raises(UserError, match=r"policy certified-1-a has expired: blind audits \(2\) say"):
        apply_policy(campaign, policy.version)
    by_thresholds, _ = label(make_campaign(routing={"policy": "none", "accept": {"detector_score": 0.0}}))
    assert by_thresholds.accepted == by_thresholds.labels
    assert by_thresholds.policy_expired == ""


def test_what_takes_its_place(certified, tmp_path, make_campaign):
    policy = certified({"cat": 0.5, "dog": None})
    ended = expired_policy(policy)
    assert [group.p_correct for group in ended.groups] == [None, None]
    assert ended.certification == policy.certification
    long = expired_policy(policy.model_copy(update={"version": "v" * 100}))
    workspace, campaign = open_store(make_campaign().workspace), make_campaign()
    for one in (ended, long):
        write_policy(workspace, one)
        assert read_policy(workspace, one.version, campaign.classes).version == one.version
