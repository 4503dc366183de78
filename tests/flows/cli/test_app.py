import os
import subprocess
import sys

import pytest

from flows.cli.app import app

HEAVY = {"torch", "prefect", "fiftyone", "numpy", "pyarrow", "transformers", "pydantic", "boto3", "supervision"}


def commands() -> list[list[str]]:
    found = [[command.name or command.callback.__name__] for command in app.registered_commands]
    for group in app.registered_groups:
        found.append([group.typer_instance.info.name])
        found += [[group.typer_instance.info.name, one.name or one.callback.__name__]
                  for one in group.typer_instance.registered_commands]  # fmt: skip
    return found


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['vouch', '--help']\nfrom flows.cli import main\n"
        f"try: main()\nexcept SystemExit as end: assert end.code == 0\nprint(sorted({HEAVY} & set(sys.modules)))"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_lists_the_commands_and_exit_codes():
    text = run("-m", "flows.cli", "--help").stdout
    for name, *_ in commands():
        assert name in text
    assert "Exit codes: 0 done, 1 failure, 2 a mistake" in text
    assert "130" in text


def test_no_command_shows_the_help(vouch):
    answer = vouch()
    assert "Usage" in answer.out + answer.err


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_with_examples(vouch, words):
    answer = vouch(*words, "--help")
    assert answer.code == 0
    assert "Exit codes" in answer.out
    if len(words) > 1 or words != ["models"]:
        assert f"vouch {' '.join(words)}" in answer.out.partition("Examples:")[2]


def test_version():
    result = run("-m", "flows.cli", "--version")
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
