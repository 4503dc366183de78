"""Average precision, image by image: the figures of pycocotools called plainly on everything at once."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vouch_labels.tasks.evaluate.average_precision import AveragePrecisionMeter

NAMES = ("a", "b", "c")


def measured(world, kind, names=NAMES):
    meter = AveragePrecisionMeter(kind, len(names))
    for image, (labels, objects) in enumerate(zip(world.labels, world.objects, strict=True)):
        meter.add(image, labels, objects)
    return meter.result(names)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_pycocotools_called_plainly(make_world, plainly, kind, seed):
    # More images than are handed over at once.
    world = make_world(seed, images=70)
    found, plain = measured(world, kind), plainly(world, kind)
    expected = (plain.stats[0], plain.stats[1], plain.stats[2], plain.stats[8])
    assert (found.map, found.ap50, found.ap75, found.ar100) == pytest.approx(expected, abs=1e-12)
    assert 0.05 < found.map < 0.95
    precision = plain.eval["precision"][:, :, :, 0, -1]
    for place, name in enumerate(NAMES):
        assert found.classes[name].ap == pytest.approx(precision[:, :, place].mean(), abs=1e-12)
        np.testing.assert_allclose(found.classes[name].precision_at_recall, precision[0, :, place], atol=1e-12)
        assert found.classes[name].recall50 == pytest.approx(plain.eval["recall"][0, place, 0, -1], abs=1e-12)


def test_as_pycocotools_with_more_labels_than_it_looks_at(make_world, make_labels, plainly):
    world = make_world(3, images=2)
    crowded = [[x, y, x + 9, y + 9] for x in range(0, 50, 4) for y in range(0, 50, 4)]
    world.labels[0] = make_labels(crowded, np.zeros(len(crowded)), np.linspace(0.1, 0.9, len(crowded)))
    assert len(crowded) > 100
    assert measured(world, "bbox").map == pytest.approx(plainly(world, "bbox").stats[0], abs=1e-12)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_perfect_labels_have_average_precision_one(make_world, make_labels, seed):
    world = make_world(seed, images=4)
    for image, objects in enumerate(world.objects):
        real = ~objects.crowd
        corners = np.concatenate([objects.xywh[:, :2], objects.xywh[:, :2] + objects.xywh[:, 2:]], axis=1)[real]
        world.labels[image] = make_labels(corners, objects.class_index[real], np.linspace(0.2, 0.9, real.sum()))
    for kind in ("bbox", "segm"):
        found = measured(world, kind)
        there = [one for one in found.classes.values() if one.objects]
        assert all((one.ap, one.ap50, one.recall50) == pytest.approx((1, 1, 1)) for one in there)
        assert found.map == (pytest.approx(1) if there else None)


def test_without_labels_and_without_objects(make_world, make_labels, make_objects):
    world = make_world(5)
    nothing = world._replace(labels=[make_labels([], [], [])] * len(world.labels))
    assert (measured(nothing, "bbox").map, measured(nothing, "bbox").ar100) == (0, 0)
    empty = world._replace(objects=[make_objects([], [])] * len(world.objects))
    found = measured(empty, "bbox")
    assert (found.map, found.classes["a"].ap, found.classes["a"].precision_at_recall) == (None, None, ())
    assert AveragePrecisionMeter("segm", 3).result(NAMES).map is None


def test_a_class_without_objects_does_not_count(make_world):
    world = make_world(6, classes=2)
    assert measured(world, "bbox").map == measured(world, "bbox", NAMES[:2]).map
