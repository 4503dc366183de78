import numpy as np
import pyarrow as pa

from tasks.contract.certify import certify_campaign
from tasks.contract.rounds import last_round
from tasks.reviews.plans import write_plan


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
