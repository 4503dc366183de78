import os

from flows.environment import DEFAULTS, prepare_environment


def test_analytics_are_off_unless_the_user_says_otherwise(monkeypatch):
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    prepare_environment()

    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    for name in DEFAULTS:
        monkeypatch.setenv(name, os.environ[name])
