import logging
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from vouch_labels.flows.cli.app import app


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def vouch(tmp_path, monkeypatch):
    """Runs the command line in this process, its log in tmp_path; the root logger is put back as it was."""
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "vouch.log"))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def call(*words) -> Answer:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "100"})
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield call
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)
