import pytest

from schemas.errors import StoreError
from schemas.policy import Certification, Group, Policy
from tasks.collect.promise import promise_of
from tasks.export.records import Promise
from tasks.store.local import LocalStore

CERTIFICATION = Certification(
    precision=0.95, confidence=0.9, gate="delivered", look=1, inputs={}, calibrator={}, fit_labels=10, brier=0.1,
    brier_of_rate=0.2, fit_share=0.5, seed=0, plans=(1,), verdicts="0", simulated=True, created="2026-03-04",
)  # fmt: skip


def test_what_policies_promise(tmp_path):
    workspace = LocalStore(tmp_path)
    group = Group(name="all", classes=("cat",))
    for policy in (
        Policy(version="user", groups=(group,)),
        Policy(version="sure", basis="certified", groups=(group,), certification=CERTIFICATION),
    ):
        workspace.put(f"policies/{policy.version}.json", policy.model_dump_json().encode())
    assert promise_of(workspace, "none") is promise_of(workspace, "user") is None
    assert promise_of(workspace, "sure") == Promise(
        policy="sure", precision=0.95, confidence=0.9, gate="delivered", simulated=True
    )
    workspace.put("policies/sure.json", b"{}")
    with pytest.raises(StoreError, match=r"policies/sure\.json is damaged"):
        promise_of(workspace, "sure")
