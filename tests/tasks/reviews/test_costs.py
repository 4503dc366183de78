from tasks.reviews.costs import CHECK_CLASS_S, image_check_s, labels_within


def test_labels_of_a_budget():
    assert labels_within(30 * 60) == 1125
    assert labels_within(16) == 10
    assert labels_within(0) == 0


def test_a_pass_over_an_image_costs_less_than_a_pass_for_each_class():
    assert image_check_s(1) == CHECK_CLASS_S
    assert CHECK_CLASS_S < image_check_s(28) < 28 * CHECK_CLASS_S
