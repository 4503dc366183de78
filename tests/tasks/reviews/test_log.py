"""Nothing that people were asked or answered, and no test, can go unnoticed while something speaks of it."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.policy import LogMark
from vouch_labels.schemas.reviews import TASKS, VERDICTS, ReviewPlan
from vouch_labels.tasks.reviews.log import (
    CertificationTest,
    check_log,
    every_test,
    log_answers,
    newest_entry,
    record_numbers,
    record_test,
)
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.store.local import LocalStore

PLAN = ReviewPlan(
    number=1, run="main", created="2026-01-01", inputs={}, precision=0.9, confidence=0.9, gate="accepted", seed=0,
    fit_share=0, counts={}, seconds=0, tasks_sha256="",
)  # fmt: skip
TEST = CertificationTest(
    run="main", look=1, key="a", inputs={"prompts": "1"}, plans=(1,), precision=0.95, confidence=0.9, created="2026"
)


def said(label, answer="correct"):
    row = dict.fromkeys(VERDICTS.names) | {"label_id": label, "verdict": answer, "reviewer": "ann", "simulated": False}
    return pa.Table.from_pylist([row], schema=VERDICTS)


def take(workspace, key="a", **changes):
    return record_test(workspace, TEST.model_copy(update={"key": key} | changes), len)


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@pytest.fixture
def filled(store):
    """Entries 1 to 6: a plan, answers, a test; the same again."""
    for number in (1, 2):
        write_plan(store, "main", PLAN, TASKS.empty_table())
        write_verdicts(store, said(str(number)))
        take(store, str(number))
    return store


def damaged(workspace):
    """What `check_log` says, in one line; empty where all is there."""
    try:
        check_log(workspace)
    except StoreError as error:
        said = str(error)
        return said.removeprefix(f"{workspace.uri}/") if "restore it" in said and "\n" not in said else said
    return ""


def test_an_empty_workspace_has_no_log(store):
    check_log(store)
    assert every_test(store) == []
    assert newest_entry(store) is None
    assert not list(store.list())


def test_plans_answers_and_tests_are_entries_of_one_chain(filled):
    assert not damaged(filled)
    entries = [json.loads(filled.get(f"reviews/log/{number:06d}.json").data) for number in range(1, 7)]
    kinds = [[kind for kind in ("plans", "answers", "tests") if kind in entry] for entry in entries]
    assert kinds == [["plans"], ["answers"], ["tests"]] * 2
    assert [test.look for test in every_test(filled)] == [1, 2]
    second = json.loads(filled.get("reviews/plans/main/0002.json").data)
    assert second["log"]["number"] == 3, "a plan names the newest entry of its time"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("reviews/log/000002.json", "reviews/log/000002.json is missing"),
        ("reviews/plans/main/0001.json", "reviews/plans/main/0001.json is missing"),
        ("reviews/plans/main/0002.json", "reviews/plans/main/0002.json is missing"),
    ],
)
def test_what_was_deleted_is_named(filled, key, problem):
    filled.delete(key)
    assert damaged(filled).startswith(problem)


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_changed_entry_is_named(filled, number):
    key = f"reviews/log/{number:06d}.json"
    filled.put(key, filled.get(key).data.replace(b'"created": "20', b'"created": "21'))
    assert damaged(filled).startswith(f"{key} has changed since it was written")


@pytest.mark.parametrize("data", [b"{}", b"\xff", b"[]", b'{"number": "x"}', b"{"])
def test_a_damaged_entry_is_named(filled, data):
    filled.put("reviews/log/000003.json", data)
    assert damaged(filled).startswith("reviews/log/000003.json is damaged")


def test_an_entry_in_the_place_of_another_is_named(filled):
    filled.put("reviews/log/000003.json", filled.get("reviews/log/000006.json").data)
    assert damaged(filled).startswith("reviews/log/000003.json has changed")


def test_a_changed_plan_is_named(filled):
    key = "reviews/plans/main/0002.json"
    filled.put(key, filled.get(key).data.replace(b'"seed": 0', b'"seed": 1'))
    assert damaged(filled).startswith(f"{key} has changed since it was written")


def test_deleted_answers_are_missed_by_every_reader(filled):
    gone = next(
        info.key for info in filled.list("reviews/") if info.key.endswith(".parquet") and "plans" not in info.key
    )
    answers = filled.get(gone).data
    filled.delete(gone)
    assert damaged(filled).startswith(f"{gone} is missing")
    with pytest.raises(StoreError, match=f"{gone} is missing; restore it"):
        read_verdicts(filled)
    filled.put(gone, answers)
    assert read_verdicts(filled).num_rows == 2
    assert not damaged(filled)


def test_the_same_answers_again_restore_their_file(filled):
    name = write_verdicts(filled, said("3"))
    filled.delete(f"reviews/{name}.parquet")
    assert write_verdicts(filled, said("3")) == name
    assert not damaged(filled)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_log_that_was_cut_or_deleted_is_missed_by_the_plans(filled, kept):
    for number in range(kept + 1, 7):
        filled.delete(f"reviews/log/{number:06d}.json")
    assert damaged(filled).startswith("reviews/log/000003.json is missing, and was there when reviews/plans/main/0002")


def test_a_log_that_was_written_again_is_another(filled):
    for number in range(1, 7):
        filled.delete(f"reviews/log/{number:06d}.json")
    for _ in range(3):
        take(filled, "b")
        write_verdicts(filled, said(str(newest_entry(filled))))
    assert damaged(filled).startswith("reviews/log/000003.json is not the one that was there when")


def test_policies_speak_of_their_test(store):
    _, mark = take(store)
    policy = {"certification": {"log": mark.model_dump()}}
    store.put("policies/certified-1-00000000.json", json.dumps(policy).encode())
    assert not damaged(store)
    store.delete("reviews/log/000001.json")
    assert damaged(store).startswith("reviews/log/000001.json is missing, and was there when policies/certified-1-")


def test_records_that_others_damaged_are_theirs_to_report(store):
    for data in (b"{", b"[]", b'{"certification": 3}', b'{"certification": {"log": 3}}'):
        store.put("policies/certified-1-00000000.json", data)
        assert not damaged(store)


def test_of_two_at_once_each_gets_an_entry(tmp_path):
    class Slow(LocalStore):
        """Another process logs answers, and makes a test, just before this one writes its entry."""

        def put(self, key, data, *, if_absent=False):
            if key == "reviews/log/000001.json" and not self.stat(key):
                write_verdicts(LocalStore(tmp_path), said("1"))
                take(LocalStore(tmp_path), "other")
            return super().put(key, data, if_absent=if_absent)

    assert take(Slow(tmp_path))[0].look == 2
    assert [test.key for test in every_test(LocalStore(tmp_path))] == ["other", "a"]
    assert not damaged(LocalStore(tmp_path))


def test_of_two_importers_at_once_each_is_logged(tmp_path):
    class Slow(LocalStore):
        def put(self, key, data, *, if_absent=False):
            if key == "reviews/log/000001.json" and not self.stat(key):
                write_verdicts(LocalStore(tmp_path), said("1"))
            return super().put(key, data, if_absent=if_absent)

    write_verdicts(Slow(tmp_path), said("2"))
    store = LocalStore(tmp_path)
    assert not damaged(store)
    for info in [info for info in store.list("reviews/") if info.key.endswith(".parquet")]:
        data = store.get(info.key).data
        store.delete(info.key)
        assert damaged(store).startswith(f"{info.key} is missing")
        store.put(info.key, data)


def test_each_key_of_a_run_is_one_test(store):
    first, mark = take(store)
    assert take(store, created="later") == (first, mark)
    assert take(store, run="other")[0].look == 2, "of another run it is another test"
    assert [(test.run, test.look) for test in every_test(store)] == [("main", 1), ("other", 2)]


def test_an_import_does_not_read_the_log(tmp_path):
    read = []

    class Counting(LocalStore):
        def get(self, key):
            read.append(key)
            return super().get(key)

    store = Counting(tmp_path)
    for number in range(20):
        log_answers(store, f"{number:032x}.parquet")
    read.clear()
    log_answers(store, f"{20:032x}.parquet")
    assert read == ["reviews/log/000020.json"]


ARCHIVES = sorted((Path(__file__).parents[2] / "workspaces").glob("*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def old(request, tmp_path):
    with tarfile.open(request.param) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None) or (lambda member, path: member)
        archive.extractall(tmp_path)
    return LocalStore(tmp_path / "workspace")


def test_what_an_old_workspace_has_is_the_first_entry(old):
    check_log(old)
    before = every_test(old)
    assert [(test.run, test.look) for test in before] == [("main", 1)]
    assert not record_numbers(old, "reviews/log/"), "reading writes nothing"
    taken, mark = take(old)
    assert (taken.look, mark.number) == (2, 2)
    assert every_test(old) == [*before, taken]
    assert not damaged(old)
    old.delete("runs/main/looks/1.json")
    assert every_test(old)[0] == before[0]
    first = json.loads(old.get("reviews/log/000001.json").data)
    assert len(first["plans"]) == 3
    old.delete(f"reviews/{first['answers'][0]}")
    assert damaged(old).startswith(f"reviews/{first['answers'][0]} is missing")


def test_an_import_into_an_old_workspace_takes_in_what_is_there_as_well(old):
    write_verdicts(old, said("1"))
    assert not damaged(old)
    old.delete("reviews/plans/main/0002.json")
    assert damaged(old).startswith("reviews/plans/main/0002.json is missing")
    assert newest_entry(old) == LogMark(number=1, sha256=newest_entry(old).sha256)


def test_a_damaged_test_of_an_old_workspace_is_named(old):
    old.put("runs/main/looks/1.json", b"{}")
    with pytest.raises(StoreError, match=r"runs/main/looks/1\.json is damaged; restore it"):
        every_test(old)
