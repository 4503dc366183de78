"""What would not be safe is refused in one line."""

import pytest

from review_ui.server.environment import server_environment
from review_ui.server.options import ServeOptions
from schemas.errors import UserError


def options(**values) -> ServeOptions:
    return ServeOptions(**({"reviewers": ("ann",)} | values))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "review.example.org"])
def test_a_host_that_others_reach_needs_tokens_of_the_users_own(host):
    with pytest.raises(UserError, match="--token-file"):
        options(host=host, names=("a.example",)).check(has_own_tokens=False)
    options(host=host, names=("a.example",)).check(has_own_tokens=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_does_not(host):
    options(host=host).check(has_own_tokens=False)


def test_all_addresses_have_no_name():
    with pytest.raises(UserError, match="--name"):
        options(host="0.0.0.0").check(has_own_tokens=True)
    assert options(host="0.0.0.0", names=("a.example",)).hosts == ("a.example",)
    assert options(host="192.168.1.2").hosts == ("192.168.1.2",)


def test_a_header_is_believed_from_a_proxy_alone():
    with pytest.raises(UserError, match="--trusted-proxy"):
        options(trust_header="X-User").check(has_own_tokens=False)
    options(trust_header="X-User", trusted_proxies=("10.0.0.1",)).check(has_own_tokens=False)


def test_a_proxy_may_say_where_requests_come_from_and_not_who_they_are_of():
    options(trusted_proxies=("10.0.0.1",)).check(has_own_tokens=False)


def test_a_proxy_is_an_address_or_a_network():
    with pytest.raises(UserError, match="no address or network"):
        options(trusted_proxies=("proxy.example",)).check(has_own_tokens=False)


def test_a_servers_environment_has_its_own_settings_and_no_secret_of_ours():
    outer = {
        "PATH": "/bin", "FIFTYONE_PLUGINS_DIR": "/mine", "FIFTYONE_DATABASE_NAME": "other",
        "VOUCH_REVIEW_TOKEN": "secret", "VOUCH_MONGODB_URI": "mongodb://a:secret@h", "FIFTYONE_ALLOWED_ORIGINS": "*",
    }  # fmt: skip
    found = server_environment(outer, "mongodb://127.0.0.1:1", "q", "ann", 25)
    assert found["PATH"] == "/bin"
    assert found["FIFTYONE_DATABASE_NAME"] == "other"
    assert found["FIFTYONE_ALLOWED_ORIGINS"] == ""
    assert found["FIFTYONE_DO_NOT_TRACK"] == "true"
    assert found["FIFTYONE_PLUGINS_DIR"].endswith("review_ui/plugin")
    assert (found["VOUCH_REVIEW_QUEUE"], found["VOUCH_REVIEW_REVIEWER"], found["VOUCH_REVIEW_BATCH"]) == (
        "q",
        "ann",
        "25",
    )
    assert not any("secret" in value for value in found.values())
