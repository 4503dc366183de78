import numpy as np
import pyarrow as pa
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.certify.fit import fit_rows, fit_run
from vouch_labels.tasks.reviews.resolve import resolve

SEED = 5


def test_only_undisputed_verdicts(make_world, make_plan, make_verdicts):
    world = make_world()
    ids = np.array(world.labels.label_ids.to_pylist())
    inside = rows = np.arange(0, 800, 10)
    answers = np.where(world.wrong[rows], "not_an_object", "correct")
    # The second reviewer disagrees about ten; unknown labels are another model's.
    tables = [
        make_verdicts(ids[rows], answers),
        make_verdicts(ids[inside[:10]], np.where(world.wrong[inside[:10]], "correct", "bad_box"), reviewer="bob"),
        make_verdicts(["unknown"] * 3, ["correct"] * 3),
    ]
    drawn = inside[20:]
    plan = make_plan({"purpose": ["fit"] * 60, "label_id": ids[drawn], "inclusion": [0.25] * 60})
    found = fit_run(world.labels, [plan], resolve(pa.concat_tables(tables)), SEED)
    assert found.rows.tolist() == sorted(inside[10:].tolist())
    assert (found.labels.wrong == world.wrong[found.rows]).all()
    weights = dict(zip(found.rows.tolist(), found.labels.weights.tolist(), strict=True))
    assert [weights[row] for row in inside[10:20]] == [1.0] * 10
    assert [weights[row] for row in drawn] == [4.0] * 60
    assert found.scores.shape == (world.labels.count,)
    assert np.mean(found.scores[~world.wrong]) > np.mean(found.scores[world.wrong]) + 0.1


def test_labels_of_two_draws_weigh_less(make_world, make_plan, answer):
    world = make_world()
    ids = np.array(world.labels.label_ids.to_pylist())
    drawn = np.arange(40)
    tasks = {"purpose": ["fit"] * 40, "label_id": ids[drawn], "inclusion": [0.5] * 40}
    plans = [make_plan(tasks), make_plan(tasks | {"inclusion": [0.2] * 40}, number=2)]
    found = fit_run(world.labels, plans, answer(ids[drawn], world.wrong[drawn]), SEED)
    assert found.labels.weights == pytest.approx(1 / 0.6)


def test_too_few(make_world, answer):
    world = make_world()
    rows = np.arange(19)
    ids = np.array(world.labels.label_ids.to_pylist())[rows]
    with pytest.raises(UserError, match=r"19 labels are reviewed for fitting, at least 20 .*vouch plan-reviews"):
        fit_run(world.labels, [], answer(ids, world.wrong[rows]), SEED)
    with pytest.raises(UserError, match="0 labels"):
        fit_run(world.labels, [], answer([], []), SEED)


@pytest.mark.parametrize("verdict", [True, False])
def test_one_verdict_alone_gives_a_constant(make_world, verdict):
    world = make_world(images=60)
    rows = np.arange(50)
    found = fit_rows(world.labels, rows, np.full(50, verdict), np.ones(50), SEED)
    assert found.scores == pytest.approx(1 / 52 if verdict else 51 / 52, abs=1e-6)


def test_a_gap_that_was_never_reviewed_gives_no_probability(make_world):
    world = make_world(images=100)
    world.labels.signals[-1, :] = np.nan
    found = fit_rows(world.labels, np.arange(100), world.wrong[:100], np.ones(100), SEED)
    assert np.isnan(found.scores[-1])
    assert np.isfinite(found.scores[:-1]).all()
    assert found.calibrator == fit_rows(world.labels, np.arange(100), world.wrong[:100], np.ones(100), SEED).calibrator
