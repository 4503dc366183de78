from tasks.contract.looks import Look, read_looks, take_look
from tasks.store.local import LocalStore

LOOK = Look(
    number=1, look=1, key="a", inputs={"prompts": "1"}, plans=(2,), precision=0.95, confidence=0.9, created="2026-01-01"
)


def test_each_key_is_one_look_and_delta_is_shared_among_equal_inputs(tmp_path):
    store = LocalStore(tmp_path)
    assert read_looks(store, "main") == []
    changes = [
        {},
        {"key": "b"},
        {"key": "c", "inputs": {"prompts": "2"}},
        {"key": "b", "created": "later"},
        {"key": "d"},
    ]
    taken = [take_look(store, "main", LOOK.model_copy(update=change)) for change in changes]
    assert [(look.number, look.look) for look in taken] == [(1, 1), (2, 2), (3, 1), (2, 2), (4, 3)]
    assert [look.key for look in read_looks(store, "main")] == ["a", "b", "c", "d"]
    assert take_look(store, "other", LOOK).number == 1


def test_of_two_at_once_each_gets_a_number(tmp_path):
    class Slow(LocalStore):
        """Another process takes the first look just before this one writes."""

        def put(self, key, data, *, if_absent=False):
            if key.endswith("/1.json") and not self.stat(key):
                take_look(LocalStore(tmp_path), "main", LOOK.model_copy(update={"key": "other"}))
            return super().put(key, data, if_absent=if_absent)

    assert take_look(Slow(tmp_path), "main", LOOK).number == 2
    assert [look.key for look in read_looks(LocalStore(tmp_path), "main")] == ["other", "a"]
