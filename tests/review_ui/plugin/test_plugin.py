"""Operators as FiftyOne runs them, on a real session; the bundle of what the browser runs beside them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import HANG_S
from tests.review_ui.session.conftest import QUEUE
from tests.review_ui.session.test_session import NEW, ids
from vouch_labels.review_ui.session.session import ItemSummary


@pytest.fixture
def run(make_session, uri, monkeypatch):
    """Make up a queue, and run operators by name on ann's session, four items a batch; gives their results."""
    make_session(10)
    from fiftyone.operators.executor import ExecutionContext, Executor

    from vouch_labels.review_ui.plugin import operators

    for name, value in (
        ("DATABASE_URI", uri),
        ("REVIEW_QUEUE", QUEUE),
        ("REVIEW_REVIEWER", "ann"),
        ("REVIEW_BATCH", "4"),
    ):
        monkeypatch.setenv(f"{'FIFTYONE' if name == 'DATABASE_URI' else 'VOUCH'}_{name}", value)
    operators._open.cache_clear()
    named = {one.NAME: one() for one in operators.OPERATORS}

    def run(name, **given):
        context = ExecutionContext(request_params={"params": given}, executor=Executor())
        result = named[name].execute(context)
        notified = [request.params["message"] for request in context.executor._requests]
        assert notified == ([result["error"]] if "error" in result else [])
        return result

    yield run
    operators._open().queue.close()
    operators._open.cache_clear()


def test_a_batch_is_taken_answered_and_given_back(run):
    assert run("session") == {
        "items": [], "classes": ["cat", "dog"], "queue": QUEUE, "lease_s": pytest.approx(86_400, abs=HANG_S),
        "open": 10,
        "answered_by_me": 0,
        "elsewhere": 0,
        "minutes_left": pytest.approx(10 * 1.6 / 60),
        "certified": None,
    }  # fmt: skip
    taken = run("take_batch")
    first, second, third, fourth = ids(taken["items"])
    assert taken["taken"] == 4
    assert ids(run("submit", item=first, seconds=1.0)["items"]) == [second, third, fourth]
    assert run("hint", item=second)["hint"] == "the models say nothing of this"
    assert ids(run("reject", item=second, seconds=float("nan"))["items"]) == [third, fourth]
    assert ids(run("bad_box", item=third)["items"]) == [fourth]
    undone = run("undo")
    assert (undone["item"], undone["answer"]) == (third, "the box does not fit")
    assert ids(run("skip", item=third)["items"]) == [fourth]
    assert run("give_back")["returned"] == 1
    assert run("take_batch")["taken"] == 4


def test_trouble_is_reported_in_a_line_and_the_session_beside_it(run):
    assert run("undo")["error"] == "there is no answer of yours to take back"
    [first, *_] = items = run("take_batch")["items"]
    for name, given, message in (
        ("submit", {}, "open an item first"),
        ("submit", {"item": "x"}, "not in your session any more"),
        ("wrong_class", {"item": first["item"], "class_name": "ox"}, "'ox' is no class of this campaign"),
        ("wrong_class", {"item": first["item"], "class_name": "cat"}, "'cat' already"),
        ("grid_take", {"count": 1000}, "a grid has 1 to 200 crops"),
        ("grid_take", {"class_name": 7}, "a grid is of one class"),
        ("grid_submit", {"shown": ["a"], "wrong": ["b"]}, "a grid is answered by its items"),
        ("grid_submit", {"shown": ["a"], "verdict": "as_shown"}, "a grid is answered by its items"),
    ):
        result = run(name, **given)
        assert message in result["error"], name
        assert result["items"] == items


def test_leases_that_were_lost_are_counted(run, uri):
    from vouch_labels.review_ui.queue.queue import Queue

    [first, *_] = ids(run("take_batch")["items"])
    with Queue.open(uri, QUEUE) as queue:
        queue.give_back("ann", [first])
    renewed = run("renew")
    assert renewed["lost"] == 1
    assert len(renewed["items"]) == 3


def test_a_grid_goes_on_past_trouble(run, draw, documents):
    from vouch_labels.review_ui.plugin.operators import review_session

    grid = run("grid_take", count=3)
    assert grid["class_name"] == "cat"
    changed, *rest = grid["grid"]
    draw(review_session(), changed, NEW)
    done = run("grid_submit", shown=grid["grid"], wrong=rest[:1], verdict="bad_box", seconds=3.0)
    assert done["answered"] == 2
    assert list(done["kept"]) == [changed]
    assert changed in ids(done["items"])
    verdicts = {
        event["item"]: (event["verdict"], event["seconds"])
        for event in documents("events")
        if event["what"] == "submitted"
    }
    assert verdicts == {rest[0]: ("bad_box", 1.0), rest[1]: ("correct", 1.0)}
    following = run("grid_take", class_name="cat")
    assert len(following["grid"]) == 2
    assert not {changed, *rest} & set(following["grid"])
    left = run("grid_take", class_name="cat", leave=following["grid"])
    assert (left["grid"], left["class_name"]) == ([], None)


ROOT = Path(__file__).parents[3]
BROWSER = ROOT / "review_ui" / "browser"
BUNDLES = [ROOT / "review_ui" / "plugin" / name for name in ("before.js", "index.umd.js", "opening.js")]


def test_the_bundle_is_built_from_its_modules(tmp_path):
    node = shutil.which("node")
    if node is None or not (BROWSER / "node_modules" / "esbuild").is_dir():
        pytest.skip("no node (Debian's packages nodejs and npm bring it; then: make js)")
    subprocess.run([node, BROWSER / "build.js", tmp_path], cwd=tmp_path, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [bundle.name for bundle in BUNDLES]
    for bundle in BUNDLES:
        assert (tmp_path / bundle.name).read_text() == bundle.read_text(), "run: make js, and commit the bundle"


def test_every_module_is_in_a_bundle():
    lines = [line.strip() for bundle in BUNDLES for line in bundle.read_text().splitlines()]
    named = {line for line in lines if line.startswith("// src/")}
    assert named == {f"// src/{path.name}" for path in (BROWSER / "src").glob("*.js")}


def test_the_guard_lets_through_what_there_is(run):
    from vouch_labels.review_ui.guard.requests import OPERATORS, PANEL, PANEL_METHODS
    from vouch_labels.review_ui.plugin import operators, panel

    assert set(OPERATORS) == {one.NAME for one in operators.OPERATORS}
    assert f"{panel.PLUGIN}/{panel.NAME}" == PANEL
    own = {name for name, value in vars(panel.ReviewQueue).items() if callable(value)}
    assert own - {"render"} == PANEL_METHODS
    read = re.findall(r'given(?:\.get\(|\[)"(\w+)"', Path(operators.__file__).read_text("utf-8"))
    allowed = set().union(*OPERATORS.values())
    # `shown` and `wrong` are read in one line, by both names.
    assert set(read) <= allowed <= {*read, "shown", "wrong"}


def test_every_module_is_checked_for_types():
    for path in (BROWSER / "src").glob("*.js"):
        assert path.read_text().startswith("// @ts-check\n"), path.name


def test_an_item_has_the_fields_that_its_modules_know():
    types = (BROWSER / "src" / "types.d.ts").read_text()
    body = types.partition("export interface ItemSummary {")[2].partition("\n}")[0]
    assert set(re.findall(r"^  (\w+):", body, re.MULTILINE)) == set(ItemSummary.__annotations__)
