import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import folder_of_an_ordinary_user
from vouch_labels.flows.user_folders import FOLDERS, name_folders
from vouch_labels.schemas.errors import UserError

OWN = f"vouch-home-{os.geteuid()}"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, as tempfile knows it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_a_home_folder_that_can_be_written_is_used(home, temporary):
    environment = {}
    assert name_folders(environment) is None
    assert environment == {}
    assert list(temporary.iterdir()) == list(home.iterdir()) == []


@pytest.mark.parametrize("place", ["missing", "missing/deeper", "file", "file/deeper"])
def test_without_a_home_folder_all_is_kept_in_a_private_one(home, temporary, monkeypatch, place):
    (home / "file").touch()
    monkeypatch.setenv("HOME", str(home / place))
    environment = {}
    remark = name_folders(environment)
    own = temporary / OWN
    assert own.stat().st_mode & 0o777 == 0o700
    assert {Path(environment[name]).relative_to(own) for name in FOLDERS} == {Path(it) for it, _ in FOLDERS.values()}
    assert environment["HOME"] == str(own)
    assert f"{home / place} cannot be written; settings" in remark
    assert str(own) in remark
    assert not (home / "missing").exists()
    again = {}
    name_folders(again)
    assert again == environment


def test_a_user_without_a_name_has_no_home_folder(temporary, monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", unknown)
    environment = {}
    assert name_folders(environment).startswith("there is no home folder; ")
    assert environment["HOME"] == str(temporary / OWN)


def test_a_relative_home_is_none(home, temporary, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", ".")
    assert "there is no home folder" in name_folders(environment := {})
    assert environment["HOME"] == str(temporary / OWN)


def test_what_the_user_has_named_is_kept(temporary, monkeypatch):
    monkeypatch.setenv("HOME", "/missing/home")
    environment = {"PREFECT_HOME": "/my/prefect", "XDG_CACHE_HOME": "/my/caches"}
    assert "(.config, .local/share, .local/state)" in name_folders(environment)
    assert environment["PREFECT_HOME"] == "/my/prefect"
    assert environment["XDG_CACHE_HOME"] == "/my/caches"
    assert environment["XDG_DATA_HOME"] == str(temporary / OWN / ".local/share")
    assert name_folders(dict.fromkeys(FOLDERS, "/my")) is None


def test_a_home_folder_that_can_only_be_read_is_read(monkeypatch):
    with folder_of_an_ordinary_user() as folder:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        home = folder / "home"
        (home / ".cache/huggingface").mkdir(parents=True)
        (home / ".cache").chmod(0o500)
        home.chmod(0o500)
        monkeypatch.setenv("HOME", str(home))
        environment = {}
        assert "cannot be written; " in name_folders(environment)
        assert "HOME" not in environment
        assert environment["XDG_CACHE_HOME"].endswith("/.cache")
        assert environment["HF_HOME"] == str(home / ".cache/huggingface")
        assert "PREFECT_PROFILES_PATH" not in environment
        home.chmod(0o700)
        (home / ".cache").chmod(0o700)


def test_one_folder_in_it_that_belongs_to_another(monkeypatch):
    with folder_of_an_ordinary_user() as folder:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        monkeypatch.setenv("HOME", str(folder))
        (folder / ".cache/vouch").mkdir(parents=True)
        (folder / ".cache/vouch").chmod(0o500)
        environment = {}
        assert f"{folder} cannot be written (.cache); " in name_folders(environment)
        assert list(environment) == ["XDG_CACHE_HOME"]


@pytest.mark.parametrize("planted", ["open", "link", "file"])
def test_a_folder_that_others_may_have_made_is_refused(home, temporary, monkeypatch, planted):
    monkeypatch.setenv("HOME", "/missing/home")
    if planted == "open":
        (temporary / OWN).mkdir()
        (temporary / OWN).chmod(0o770)
    elif planted == "link":
        home.chmod(0o700)
        (temporary / OWN).symlink_to(home)
    else:
        (temporary / OWN).touch()
    environment = {}
    with pytest.raises(UserError, match="is not this user's alone; remove it, or set HOME"):
        name_folders(environment)
    assert environment == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of others")
def test_a_folder_of_somebody_else_is_refused(temporary, monkeypatch):
    monkeypatch.setenv("HOME", "/missing/home")
    (temporary / OWN).mkdir(mode=0o700)
    os.chown(temporary / OWN, 65534, 65534)
    with pytest.raises(UserError, match="is not this user's alone"):
        name_folders({})


def test_no_folder_at_all(home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("HOME", "/missing/home")
    monkeypatch.setattr("tempfile.tempdir", str(home / "file"))
    with pytest.raises(UserError, match="set HOME or TMPDIR to a folder that can"):
        name_folders({})


class TestCommand:
    """In a process of its own, as users meet it."""

    @staticmethod
    def call(tmp_path, *words):
        given = (*FOLDERS, "VOUCH_LOG", "VOUCH_CACHE", "HF_HOME")
        environment = {name: value for name, value in os.environ.items() if name not in given}
        environment |= {"HOME": str(tmp_path / "missing"), "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-m", "vouch_labels.flows.cli", *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)

    def test_it_is_told_in_one_line(self, tmp_path):
        done = self.call(tmp_path, "init", str(tmp_path / "new"), "--class", "cat")
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines() == [
            f"vouch: the home folder {tmp_path / 'missing'} cannot be written; settings, logs and caches are in "
            f"{tmp_path / OWN} (HOME names another folder)"
        ]
        assert (tmp_path / OWN / ".local/state/vouch/vouch.log").exists()
        assert not (tmp_path / "missing").exists()

    def test_help_is_only_help(self, tmp_path):
        done = self.call(tmp_path, "init", "--help")
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_planted_folder_ends_it(self, tmp_path):
        (tmp_path / OWN).touch()
        done = self.call(tmp_path, "init", str(tmp_path / "new"))
        assert done.returncode == 2
        assert done.stderr.startswith(f"vouch: {tmp_path / OWN} is not this user's alone")
        assert len(done.stderr.splitlines()) == 1
