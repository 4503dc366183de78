from asyncio import CancelledError

import pytest

from flows.signals import signal_behind


class TerminationSignal(BaseException):
    """Named as Prefect's."""


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (KeyboardInterrupt(), (130, "interrupted")),
        (TerminationSignal(), (143, "terminated")),
        (SystemExit(143), (143, "terminated")),
        (SystemExit(129), (129, "terminated")),
        (SystemExit(1), None),
        (CancelledError(), None),
        (KeyError(), None),
        (None, None),
    ],
)
def test_a_signal_is_seen_by_itself_and_behind_other_errors(cause, expected):
    middle, outer = CancelledError(), ValueError()
    outer.__context__, middle.__context__ = middle, cause
    assert signal_behind(outer) == expected
    if cause is not None:
        assert signal_behind(cause) == expected
