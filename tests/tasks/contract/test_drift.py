import numpy as np

from tasks.contract.drift import P_CORRECT, audit_factor, drift, reference
from tasks.contract.run_labels import SIGNALS


def test_a_moved_signal_asks_for_more_audits(make_world):
    before, now = make_world(images=1500).labels, make_world(images=1500, seed=1).labels
    scores = [np.random.default_rng(seed).random(labels.count) for seed, labels in enumerate((before, now))]
    every = [np.ones(labels.count, np.bool_) for labels in (before, now)]
    kept = reference(before, scores[0], every[0])
    assert set(kept) == {*SIGNALS, P_CORRECT}
    assert {len(values) for values in kept.values()} == {101}
    still = drift(kept, now, scores[1], every[1])
    assert audit_factor(still) == 1
    now.signals[:, SIGNALS.index("sam_iou")] += 0.5
    moved = drift(kept, now, scores[1], every[1])
    assert audit_factor(moved) == 2
    assert next(iter(moved)) == "sam_iou"
    assert next(iter(moved.values())).distance > 0.1


def test_whole_numbers_do_not_drift_from_themselves(make_world):
    labels = make_world(images=500).labels
    column = SIGNALS.index("border_sides")
    labels.signals[:, column] = np.random.default_rng(0).integers(0, 5, labels.count)
    scores, every = np.ones(labels.count), np.ones(labels.count, np.bool_)
    found = drift(reference(labels, scores, every), labels, scores, every)
    assert found["border_sides"].distance < 0.02
    assert audit_factor(found) == 1


def test_a_signal_that_vanished_has_drifted_and_one_that_never_was_has_not(make_world):
    labels = make_world(images=200).labels
    scores, every = np.ones(labels.count), np.ones(labels.count, np.bool_)
    labels.signals[:, 0] = np.nan
    kept = reference(labels, scores, every)
    assert SIGNALS[0] not in kept
    labels.signals[:, 1] = np.nan
    found = drift(kept, labels, scores, every)
    assert found[SIGNALS[1]].audit_factor == 2
    assert audit_factor({}) == 1
