from typing import Any

import numpy as np
import pyarrow as pa

from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.rounds import CertificationTest, last_round, read_tests, record_test
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.store.local import LocalStore


def test_a_label_that_two_planners_drew_counts_once(campaigned):
    campaigned.fitted().sampled()
    before = certify_campaign(campaigned.campaign)
    plan, tasks = campaigned.reviews.plans[-1]
    write_plan(campaigned.workspace, "main", plan, tasks.slice(0, tasks.num_rows - 3))
    found = last_round(campaigned.reviews.plans)
    assert [one.number for one in found.plans] == [2, 3]
    assert found.tasks["label_id"].to_pylist() == tasks["label_id"].to_pylist()
    after = certify_campaign(campaigned.campaign)
    reviewed = [sum(group.certificate.reviewed for group in one.groups) for one in (before, after)]
    assert reviewed[1] <= reviewed[0]


def test_of_two_declarations_of_a_round_the_last_holds(make_plan):
    def drawn(number, ids, **changes):
        count = len(ids)
        tasks = {"purpose": ["certify"] * count, "label_id": ids, "class_name": ["cat"] * count}
        tasks |= {"inclusion": np.full(count, 0.1), "p_correct": np.full(count, 0.9, np.float32)}
        groups = ({"name": "cat", "classes": ("cat",), "thresholds": (0.9,)},)
        return make_plan(tasks, number=number, round=1, groups=groups, **changes)

    plans = [
        drawn(1, ["a", "b"], calibrator="1"),
        drawn(2, ["a", "c"], calibrator="2"),
        drawn(3, ["d"], calibrator="2"),
    ]
    found = last_round(plans)
    assert [plan.number for plan in found.plans] == [2, 3]
    assert found.tasks["label_id"] == pa.chunked_array([["a", "c", "d"]])
    assert last_round([make_plan({"purpose": ["fit"]})]) is None


LOOK = CertificationTest(
    number=1, look=1, key="a", inputs={"prompts": "1"}, plans=(2,), precision=0.95, confidence=0.9, created="2026-01-01"
)


def test_each_key_is_one_look_and_delta_is_shared_among_equal_inputs(tmp_path):
    store = LocalStore(tmp_path)
    assert read_tests(store, "main") == []
    changes: list[dict[str, Any]] = [
        {},
        {"key": "b"},
        {"key": "c", "inputs": {"prompts": "2"}},
        {"key": "b", "created": "later"},
        {"key": "d"},
    ]
    taken = [record_test(store, "main", LOOK.model_copy(update=change)) for change in changes]
    assert [(look.number, look.look) for look in taken] == [(1, 1), (2, 2), (3, 1), (2, 2), (4, 3)]
    assert [look.key for look in read_tests(store, "main")] == ["a", "b", "c", "d"]
    assert record_test(store, "other", LOOK).number == 1


def test_of_two_at_once_each_gets_a_number(tmp_path):
    class Slow(LocalStore):
        """Another process takes the first test just before this one writes."""

        def put(self, key, data, *, if_absent=False):
            if key.endswith("/1.json") and not self.stat(key):
                record_test(LocalStore(tmp_path), "main", LOOK.model_copy(update={"key": "other"}))
            return super().put(key, data, if_absent=if_absent)

    assert record_test(Slow(tmp_path), "main", LOOK).number == 2
    assert [look.key for look in read_tests(LocalStore(tmp_path), "main")] == ["other", "a"]
