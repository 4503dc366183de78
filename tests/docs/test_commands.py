"""The commands that the pages show are there, with the options that they are given, and the first page is one page."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from vouch_labels.flows.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^ *\$ (?:\.venv/bin/)?vouch (.*)$", re.MULTILINE)


def shown(page: Path) -> list[list[str]]:
    blocks = (text for _, text in BLOCK.findall(page.read_text(encoding="utf-8")))
    lines = (line for text in blocks for line in SHOWN.findall(text))
    # Up to a pipe or a redirection, which are the shell's.
    return [shlex.split(re.split(r" [|>] ", line)[0], comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for words in shown(page):
        command = typer.main.get_command(app)
        while (commands := getattr(command, "commands", None)) and not words[0].startswith("-"):
            assert words[0] in commands, words
            command, words = commands[words[0]], words[1:]
        options = {"--help"} | {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        for word in words:
            if word.startswith("-"):
                assert word.partition("=")[0] in options, words


def test_the_first_page_shows_its_commands():
    names = [words[0] for words in shown(ROOT / "README.md")]
    assert names[:2] == ["init", "preview"]
    assert {"models", "run", "status", "review", "certify", "apply", "report"} <= {*names}


def test_the_first_page_is_no_book():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250
