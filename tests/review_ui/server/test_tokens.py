"""Tokens that are drawn, and the user's own."""

import pytest

from review_ui.server.tokens import VARIABLE, draw_tokens, own_tokens
from schemas.errors import UserError

LONG = "x" * 20


def test_drawn_tokens_are_long_and_differ():
    found = draw_tokens(["ann", "ben"])
    assert set(found) == {"ann", "ben"}
    assert found["ann"] != found["ben"]
    assert all(len(token) >= 40 for token in found.values())


def test_none_are_set():
    assert own_tokens(["ann"], None, {}) is None


def test_of_the_environment():
    assert own_tokens(["ann"], None, {VARIABLE: f"{LONG}\n"}) == {"ann": LONG}
    with pytest.raises(UserError, match="one reviewer's token"):
        own_tokens(["ann", "ben"], None, {VARIABLE: LONG})


@pytest.mark.parametrize(
    ("text", "reviewers", "found"),
    [
        (LONG, ["ann"], {"ann": LONG}),
        (
            f"# mine\n\nann {LONG}\nben\t{LONG}2\nann b {LONG}3",
            ["ann b", "ben"],
            {"ann b": f"{LONG}3", "ben": f"{LONG}2"},
        ),
    ],
)
def test_of_a_file(tmp_path, text, reviewers, found):
    path = tmp_path / "tokens"
    path.write_text(text)
    assert own_tokens(reviewers, path, {VARIABLE: "y" * 20}) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"ben {LONG}", "no token of 'ann'"),
        ("ann short-one", "shorter than 16"),
        (f"{LONG}\nann {LONG}", "token 1 of .* has no name"),
        ("", "no token of 'ann'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_a_token(tmp_path, text, words):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        own_tokens(["ann"], path, {})
    assert LONG not in str(error.value)
    assert "short-one" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot read the tokens"):
        own_tokens(["ann"], tmp_path / "none", {})
