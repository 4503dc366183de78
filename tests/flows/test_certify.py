"""The flow that certifies: its result and its artifact."""

import pytest

from flows.markdown import certified_markdown
from schemas.errors import UserError
from schemas.policy import Certified, Group, GroupCertificate, Reviewers

CERTIFICATE = GroupCertificate(
    labels=1000, accepted=600, reviewed=400, errors=8, limit=0.05, bound=0.034, p_value=0.01, delta=0.08, tested=(0.9,),
    accepted_precision=0.96, accepted_at_least=0.94, delivered_precision=0.98, delivered_at_least=0.966,
)  # fmt: skip
REFUSED = GroupCertificate(
    labels=90, accepted=0, reviewed=9, errors=0, limit=0.05, bound=0.3, p_value=0.6, delta=0.04, tested=(0.9,),
    refusal="too few", more_reviews=100,
)  # fmt: skip


def result(**changes) -> Certified:
    values = {
        "run": "main", "workspace": "/w", "version": "certified-1-a", "precision": 0.95, "confidence": 0.9,
        "gate": "delivered", "look": 1, "delta": 0.08, "labels": 1500, "kept_for_fitting": 410, "accepted": 600,
        "groups": (
            Group(name="cat|s", classes=("cat",), p_correct=0.9, certificate=CERTIFICATE),
            Group(name="dog", classes=("dog",), certificate=REFUSED),
        ),
        "classes": (), "reviewers": Reviewers(), "simulated": False,
    }  # fmt: skip
    return Certified(**(values | changes))


def test_the_certificates_as_markdown():
    text = certified_markdown(result())
    assert text.startswith("# Certification of run main: policy certified-1-a")
    assert r"| cat\|s | 400 | 8 | 0.0340 | 0.0500 | 0.9000 | 60.0% | 0.960 (≥0.940) | 0.980 (≥0.966) |" in text
    assert "| dog | too few |" in text
    assert "Simulated" not in text
    assert "**Simulated reviewer" in certified_markdown(result(simulated=True))
    assert "not certified" in certified_markdown(result(version=None))
    assert "1 class has no label in the sample" in certified_markdown(result(not_sampled=("emu",)))


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_refuses_as_the_command_does_and_shows_what_it_found(tmp_path, make_images, make_campaign, label):
    from prefect.client.orchestration import get_client

    from flows.certify import show, vouch_certify

    make_images(tmp_path / "images", 2)
    label(make_campaign())
    with pytest.raises(UserError, match="there are no verdicts"):
        vouch_certify(str(tmp_path / "campaign.yaml"))
    show(result())
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC", "limit": 1}).json()
    assert found[0]["key"] == "vouch-certify"
    assert "| dog | 9 | 0 |" in found[0]["data"]
