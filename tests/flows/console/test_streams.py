import os
import subprocess
import sys

from flows.console.streams import quiet

CODE = """
import os, subprocess, sys
from flows.console.log import start_log
from flows.console.streams import quiet
start_log()
print("before")
with quiet() as terminal:
    print("python out")
    print("python err", file=sys.stderr)
    os.write(1, b"c out\\n")
    os.write(2, b"c err\\n")
    subprocess.run(["sh", "-c", "echo child out; echo child err >&2"])
    terminal.out.write("result\\n")
    terminal.remarks().print("remark")
print("after")
print("after err", file=sys.stderr)
"""


def test_only_own_words_reach_the_terminal(tmp_path):
    log = tmp_path / "vouch.log"
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env={**os.environ, "VOUCH_LOG": str(log)}
    )
    assert result.stdout == "before\nresult\nafter\n"
    assert result.stderr == "remark\nafter err\n"
    text = log.read_text()
    for words in ("python out", "python err", "c out", "c err", "child out", "child err"):
        assert words in text


def test_streams_come_back_after_an_error(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "missing" / "vouch.log"))
    try:
        with quiet():
            print("lost")
            raise ValueError
    except ValueError:
        pass
    print("seen")
    os.write(2, b"seen too\n")
    out, err = capfd.readouterr()
    assert out == "seen\n"
    assert err == "seen too\n"
