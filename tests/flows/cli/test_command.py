import logging
from functools import partial

import pytest
import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import log_path
from vouch_labels.schemas.errors import CampaignError, StoreError, UserError


@pytest.fixture
def end(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "sub" / "vouch.log"))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def call(error: BaseException | None, name: str = "run") -> tuple[int, str]:
        def command() -> None:
            if error is not None:
                raise error

        command.__name__ = name
        try:
            reported(command)()
        except typer.Exit as exit_:
            return exit_.exit_code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    yield call
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


def test_success_says_nothing(end):
    assert end(None) == (0, "")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("fix it"), 2, "vouch: fix it\n"),
        (StoreError("gone"), 1, "vouch: gone\n"),
        (StoreError("cannot read \x1b[31m.png"), 1, "vouch: cannot read \ufffd[31m.png\n"),
        (CampaignError("c.yaml:1: a\nc.yaml:2: b"), 2, "c.yaml:1: a\nc.yaml:2: b\n"),
        (SystemExit(143), 143, "vouch: terminated; finished work is kept: run the same command again to resume\n"),
        (SystemExit(1), 0, ""),  # rich's, when whoever read its output has gone
        (KeyboardInterrupt(), 130, "vouch: interrupted; finished work is kept: run the same command again to resume\n"),
    ],
)
def test_known_ends(end, error, code, words):
    assert end(error) == (code, words)


def test_what_cannot_be_resumed_is_not_said_to_be(end):
    assert end(KeyboardInterrupt(), "scenes") == (130, "vouch: interrupted\n")


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_the_log(end):
    code, words = end(ZeroDivisionError("a\nb"))
    assert code == 1
    assert words == f"vouch: unexpected ZeroDivisionError: a b (traceback in {log_path()})\n"
    log = log_path().read_text()
    assert "Traceback (most recent call last)" in log
    assert "ZeroDivisionError" in log


def test_a_user_error_leaves_its_traceback_in_the_log_too(end):
    end(UserError("fix it"))
    assert "UserError: fix it" in log_path().read_text()


def test_a_log_that_cannot_be_written_does_not_matter(end, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "file" / "vouch.log"))
    assert end(UserError("fix it")) == (2, "vouch: fix it\n")


class TerminationSignal(BaseException):
    """Named as Prefect's."""


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [
        (KeyboardInterrupt, 130, "interrupted"),
        (TerminationSignal, 143, "terminated"),
        (partial(SystemExit, 129), 129, "terminated"),
    ],
)
def test_a_signal_that_an_error_hides_is_told(end, sent, code, word):
    hidden = ValueError("Task run is not set")
    hidden.__context__ = sent()
    assert end(hidden) == (code, f"vouch: {word}; finished work is kept: run the same command again to resume\n")
    assert "Traceback" not in log_path().read_text()
