"""A workspace says its format: written by the first run, looked at once by a command, refused where it is unknown."""

import json
from collections import Counter

import pytest

from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import FORMAT, FORMAT_FILE

pytestmark = pytest.mark.usefixtures("prefect_server")

COMMANDS = [
    "run",
    "status",
    "status --failed",
    "export",
    "plan-reviews",
    "review --open",
    "verdicts",
    "verdicts answers.csv --reviewer ann",
    "verdicts --tasks tasks.csv",
    "verdicts --export all.csv",
    "certify",
    "apply",
    "evaluate --truth truth.json",
    "simulate --truth truth.json",
    "report",
]


@pytest.fixture
def looks(monkeypatch):
    """How often each object of a local store was read."""
    read = Counter()
    get = LocalStore.get

    def counted(self, key):
        read[key] += 1
        return get(self, key)

    monkeypatch.setattr(LocalStore, "get", counted)
    return read


@pytest.mark.parametrize("words", COMMANDS)
def test_a_newer_workspace_is_refused_in_one_line_and_left_as_it_is(
    vouch, write_campaign, make_images, tmp_path, monkeypatch, words
):
    make_images(tmp_path / "images", 1)
    campaign = write_campaign()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "workspace" / FORMAT_FILE
    file.parent.mkdir()
    file.write_text('{"format": 99, "of": "tomorrow"}')
    command, *options = words.split()
    answer = vouch(command, campaign, *options)
    assert (answer.code, answer.out.strip()) == (2, "")
    assert answer.err.splitlines()[-1] == (  # before it stands the progress
        f"vouch: {file}: the workspace has format 99, and this Vouch reads format {FORMAT}; "
        "install the Vouch that wrote it, or a newer one, or name another workspace"
    )
    assert [path.name for path in file.parent.iterdir()] == [FORMAT_FILE]
    assert file.read_text() == '{"format": 99, "of": "tomorrow"}'


def test_a_damaged_file_says_how_to_repair_it(vouch, write_campaign, tmp_path):
    file = tmp_path / "workspace" / FORMAT_FILE
    file.parent.mkdir()
    for content in ("", "[]", "{}", '{"format": "1"}', '{"format": 0}'):
        file.write_text(content)
        answer = vouch("status", write_campaign())
        assert answer.code == 1
        assert f'{file} is damaged; restore it, or put {{"format": 1}} there' in answer.err


def test_the_first_run_writes_it_and_each_command_looks_once(vouch, write_campaign, make_images, tmp_path, looks):
    make_images(tmp_path / "images", 9)
    campaign, file = write_campaign(), tmp_path / "workspace" / FORMAT_FILE
    assert vouch("status", campaign).code == 0
    assert not file.exists()
    looks.clear()
    for words in ("run", "run", "status", "status --failed", "export", "plan-reviews", "verdicts", "apply", "report"):
        command, *options = words.split()
        if words == "report":
            options += ["--out", str(tmp_path / "report.html")]
        answer = vouch(command, campaign, *options)
        # There is no certified policy to apply.
        assert answer.code == (2 if words == "apply" else 0), answer.err
        assert looks[FORMAT_FILE] == 1, words
        assert json.loads(file.read_text()) == {"format": FORMAT}
        looks.clear()


def test_a_workspace_without_one_is_of_the_first_version(vouch, write_campaign, make_images, tmp_path):
    make_images(tmp_path / "images", 3)
    campaign, file = write_campaign(), tmp_path / "workspace" / FORMAT_FILE
    assert vouch("run", campaign).code == 0
    file.unlink()
    assert json.loads(vouch("status", campaign, "--json").out)["done"] == 3
    assert not file.exists()
    summary = json.loads(vouch("run", campaign, "--json").out)
    assert summary["shards_processed"] == 0
    assert json.loads(file.read_text()) == {"format": 1}
