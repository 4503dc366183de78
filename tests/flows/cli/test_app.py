"""The command line itself: help, options, errors, log."""

import os
import re
import subprocess
import sys
from functools import partial

import pytest
import typer

from vouch_labels.flows.cli.app import app
from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import log_path
from vouch_labels.schemas.errors import CampaignError, StoreError, UserError

HEAVY = {"torch", "prefect", "fiftyone", "numpy", "pyarrow", "transformers", "pydantic", "boto3", "supervision"}


def commands() -> dict[str, typer.core.TyperCommand]:
    """Every command that answers by itself, as it is typed: typer has named it, whether it was given a name or not."""
    return dict(_below("", typer.main.get_command(app)))


def _below(words, group):
    for name, command in group.commands.items():
        typed = f"{words} {name}".strip()
        yield from _below(typed, command) if hasattr(command, "commands") else [(typed, command)]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    coloured = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CLICOLOR_FORCE"}
    env = {name: value for name, value in os.environ.items() if name not in coloured} | {"COLUMNS": "100"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['vouch', '--help']\nfrom flows.cli import main\n"
        f"try: main()\nexcept SystemExit as end: assert end.code == 0\nprint(sorted({HEAVY} & set(sys.modules)))"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_lists_the_commands_and_exit_codes():
    text = run("-m", "vouch_labels.flows.cli", "--help").stdout
    listed = set(re.findall(r"^[^\w-]*([a-z][\w-]*)  ", text, re.MULTILINE))
    assert {words.split()[0] for words in commands()} <= listed
    assert "Exit codes: 0 done, 1 failure, 2 a mistake" in text
    assert "130" in text


def test_no_command_shows_the_help(vouch):
    answer = vouch()
    assert "Usage" in answer.out + answer.err


def test_names_are_typed_with_hyphens():
    assert {"plan-reviews", "models list", "run"} <= set(commands())
    assert not [words for words in commands() if "_" in words]


@pytest.mark.parametrize("words", commands())
def test_every_command_has_help_with_examples(vouch, words):
    answer = vouch(*words.split(), "--help")
    assert answer.code == 0
    assert "Exit codes" in answer.out
    assert f"vouch {words}" in answer.out.partition("Examples:")[2]


def test_a_group_has_help(vouch):
    answer = vouch("models", "--help")
    assert answer.code == 0
    assert "Exit codes" in answer.out


def test_version():
    result = run("-m", "vouch_labels.flows.cli", "--version")
    assert result.returncode == 0
    assert result.stdout.startswith("vouch ")


@pytest.mark.parametrize("words", [["nothing"], ["run"], ["run", "a", "b"], ["run", "--nothing", "a"], ["models", "x"]])
def test_wrong_usage_ends_with_2(vouch, words):
    answer = vouch(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert "Usage" in answer.err


def test_a_termination_unwinds(tmp_path):
    code = (
        "import os, signal, flows.cli.app as m\n"
        "m.app = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "try: m.main()\nfinally: print('cleaned up', flush=True)"
    )
    result = run("-c", code)
    assert result.returncode == 143
    assert "cleaned up" in result.stdout


@pytest.fixture
def end(log_file, capsys):
    def call(error: BaseException | None, name: str = "run") -> tuple[int, str]:
        def command() -> None:
            if error is not None:
                raise error

        command.__name__ = name
        try:
            reported()(command)()
        except typer.Exit as exit_:
            return exit_.exit_code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


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
