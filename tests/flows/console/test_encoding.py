import json
import os
import subprocess
import sys

import pytest

from vouch_labels.flows.console.encoding import PLAIN
from vouch_labels.flows.console.output import Terminal, print_json

SAY = """
import sys
from vouch_labels.flows.cli import app
def say():
    print(sys.getfilesystemencoding(), sys.argv[1:])
    print("p \u2265 0.5 \u2026 \u00fc \u2500 \U0001f600")
app.app = say
app.main()
"""


def run(tmp_path, *words, **environment):
    asked = ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    kept = {name: value for name, value in os.environ.items() if name not in asked}
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, env=kept | {"VOUCH_LOG": str(tmp_path / "log")} | environment, check=False
    )


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def test_names_are_utf8_where_the_locale_is_not(tmp_path):
    done = run(tmp_path, "-c", SAY.encode("ascii", "backslashreplace").decode(), "Größe", **ASCII)
    assert done.returncode == 0, done.stderr
    named, signs = done.stdout.decode("ascii").splitlines()
    assert named == r"utf-8 ['Gr\xf6\xdfe']"
    assert signs == r"p >= 0.5 ... \xfc \u2500 \U0001f600"


def test_the_terminal_gets_what_it_can_show(tmp_path):
    done = run(tmp_path, "-c", SAY, LC_ALL="C.UTF-8", PYTHONIOENCODING="latin-1")
    assert done.stdout.decode("latin-1").splitlines()[1] == "p >= 0.5 ... ü \\u2500 \\U0001f600"
    done = run(tmp_path, "-c", SAY, LC_ALL="C.UTF-8")
    assert done.stdout.decode().splitlines()[1] == "p \u2265 0.5 \u2026 ü \u2500 \U0001f600"


@pytest.mark.parametrize("environment", [ASCII, {"LC_ALL": "C"}, {}], ids=["ascii", "C", "none"])
def test_commands_with_umlauts(tmp_path, environment):
    folder = tmp_path / "Größe x"
    (tmp_path / "Bäder").mkdir()
    done = run(
        tmp_path,
        "-m",
        "vouch_labels.flows.cli",
        "init",
        str(folder),
        "--class",
        "Tür",
        "--source",
        str(tmp_path / "Bäder"),
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert "name: Tür" in (folder / "campaign.yaml").read_text(encoding="utf-8")
    done = run(
        tmp_path, "-m", "vouch_labels.flows.cli", "status", str(folder / "campaign.yaml"), "--json", **environment
    )
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_help_and_lists_on_an_ascii_terminal(tmp_path):
    for words in (["--help"], ["models", "list"], ["run", "--help"]):
        done = run(tmp_path, "-m", "vouch_labels.flows.cli", *words, **ASCII)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        assert (done.stdout + done.stderr).isascii()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_says_the_same_in_every_encoding(tmp_path, encoding):
    value = {"key": "Gr\u00f6\u00dfe \u87ba.png", "undecodable": "\udcff"}
    path = tmp_path / "out"
    with path.open("w", encoding=encoding) as out:
        print_json(Terminal(out, out), value)
    assert json.loads(path.read_text(encoding=encoding)) == value


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "Gr\udcc3\udcb6\udcc3\udc9fe", r"Gr\xf6\xdfe"),
        ("latin-1", "Gr\udcc3\udcb6\udcc3\udc9fe \u2265 1", "Größe >= 1"),
        ("utf-8", "Gr\udcf6\udcdfe \u2265 1 \u2026", "Gr\\xf6\\xdfe \u2265 1 \u2026"),
        ("ascii", "\ud800", r"\ud800"),
    ],
)
def test_names_that_could_not_be_decoded(encoding, text, shown):
    assert text.encode(encoding, PLAIN).decode(encoding) == shown
