import numpy as np
import pytest

from tasks.certify.bounds import labels_needed
from tasks.certify.groups import SPARE_ERRORS, certified_groups, delta_of_look

LABELS = np.array([4000, 9000, 300, 2000, 0, 50])


def test_frequent_classes_stand_alone_and_rare_ones_are_pooled():
    groups = certified_groups(LABELS, 2400, 0.95, 0.1)
    assert [group.tolist() for group in groups] == [[1], [0], [3, 2, 5, 4]]


@pytest.mark.parametrize("reviews", [0, 100, 600, 2400, 50_000])
def test_every_class_is_in_one_group_and_groups_get_enough(reviews):
    groups = certified_groups(LABELS, reviews, 0.95, 0.1)
    assert sorted(np.concatenate(groups)) == list(range(len(LABELS)))
    if len(groups) > 1:
        least = labels_needed(SPARE_ERRORS, 0.05, 0.1 / len(groups))
        assert min(LABELS[group].sum() for group in groups) * reviews / LABELS.sum() >= least


def test_without_labels_there_is_one_group():
    assert len(certified_groups(np.zeros(3, np.int64), 500, 0.95, 0.1)) == 1


def test_looks_spend_delta_and_no_more():
    spent = [delta_of_look(0.1, look) for look in range(1, 50)]
    assert spent[0] == pytest.approx(0.08)
    assert sum(spent) == pytest.approx(0.1)
