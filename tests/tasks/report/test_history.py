"""Reports know the ones before them."""

import pytest

from tasks.report.history import keep_report
from tasks.store.local import LocalStore


@pytest.fixture
def store(tmp_path):
    (tmp_path / "workspace").mkdir()
    return LocalStore(tmp_path / "workspace")


def with_accepted(report, accepted, created="2026-05-01T00:00:00+00:00"):
    automation = report.automation.model_copy(update={"accepted": accepted})
    return report.model_copy(update={"automation": automation, "created": created})


def test_the_first_has_nothing_to_compare_with(store, certified_report):
    found = keep_report(store, certified_report.model_copy(update={"changes": type(certified_report.changes)()}))
    assert found.number == 1
    assert found.changes.since is None


def test_what_changed_is_said_with_its_direction(store, certified_report):
    keep_report(store, certified_report)
    found = keep_report(store, with_accepted(certified_report, 650))
    assert (found.number, found.changes.number, found.changes.since) == (2, 1, certified_report.created)
    assert {(one.name, one.before, one.now, one.direction, one.words) for one in found.changes.changes} == {
        ("labels accepted", "610", "650", "up", "40 more"),
        ("automation", "61.0%", "65.0%", "up", "4.0 points"),
    }


def test_the_same_again_is_no_new_report_and_says_the_same(store, certified_report):
    keep_report(store, certified_report)
    first = keep_report(store, with_accepted(certified_report, 650))
    again = keep_report(store, with_accepted(certified_report, 650, created="2026-06-01T00:00:00+00:00"))
    assert again.number == first.number
    assert again.changes == first.changes
    assert len(list(store.list("reports/"))) == 2


def test_a_record_of_another_version_is_passed_over(store, certified_report):
    keep_report(store, certified_report)
    store.put(f"reports/{certified_report.run}/0002.json", b'{"number": 2}')
    found = keep_report(store, with_accepted(certified_report, 600))
    assert (found.number, found.changes.number) == (3, 1)


def test_a_figure_that_is_new_has_no_direction(store, certified_report):
    keep_report(store, certified_report.model_copy(update={"audits": ()}))
    found = keep_report(store, certified_report)
    assert [(one.name, one.before, one.now, one.direction) for one in found.changes.changes] == [
        ("audited precision", "none", "97.3%", "other")
    ]
