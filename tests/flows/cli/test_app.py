import os
import re
import subprocess
import sys

import pytest
import typer

from vouch_labels.flows.cli.app import app

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
