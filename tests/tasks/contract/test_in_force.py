import pytest

from schemas.errors import StoreError
from tasks.contract.in_force import put_in_force, version_in_force
from tasks.store.local import LocalStore


def test_put_and_taken_back(tmp_path):
    workspace = LocalStore(tmp_path)
    assert version_in_force(workspace, "main") is None
    put_in_force(workspace, "main", "certified-1-a")
    put_in_force(workspace, "other", "certified-1-b")
    assert version_in_force(workspace, "main") == "certified-1-a"
    put_in_force(workspace, "main", "certified-2-a")
    assert version_in_force(workspace, "main") == "certified-2-a"
    put_in_force(workspace, "main", None)
    assert version_in_force(workspace, "main") is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version": 3}', b'{"version": "v", "more": 1}'])
def test_a_damaged_record_is_one_line(tmp_path, data):
    workspace = LocalStore(tmp_path)
    workspace.put("runs/main/policy.json", data)
    with pytest.raises(StoreError, match=r"runs/main/policy\.json is damaged; delete it") as caught:
        version_in_force(workspace, "main")
    assert "\n" not in str(caught.value)
