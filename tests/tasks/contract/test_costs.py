from tasks.contract.costs import labels_within


def test_labels_of_a_budget():
    assert labels_within(30 * 60) == 1125
    assert labels_within(16) == 10
    assert labels_within(0) == 0
