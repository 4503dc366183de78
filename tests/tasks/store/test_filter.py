import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.campaign import IMAGE_GLOBS
from tasks.store.filter import compile_filter


@pytest.mark.parametrize(
    ("glob", "taken", "left"),
    [
        ("**/*.jpg", ["a.jpg", "x/a.JPG", "x/y/.jpg"], ["a.jpg/x", "a.png", "ajpg"]),
        ("*.jpg", ["a.jpg"], ["x/a.jpg"]),
        ("train/**", ["train/a", "TRAIN/x/y"], ["train", "trainx/a"]),
        ("train/**/*.png", ["train/a.png", "train/x/y/a.png"], ["test/a.png", "train.png"]),
        ("**/train/*", ["train/a", "x/y/train/a"], ["xtrain/a", "train/a/b"]),
        ("**", ["a", "a/b"], []),
        ("a?c", ["abc", "a.c"], ["ac", "a/c", "abbc"]),
        ("img[0-9].png", ["img7.png"], ["imgx.png", "img10.png"]),
        ("img[!0-9].png", ["imgx.png"], ["img7.png", "img/.png"]),
        ("a[]]b", ["a]b"], ["ab"]),
        ("a[b", ["a[b"], ["ab"]),
        ("a[!]b", ["a[!]b"], ["axb"]),
        ("a[]b", ["a[]b"], ["ab"]),
        ("a[z-a]b", [], ["a-b", "azb", "ab"]),
        ("a[!z-a]b", ["azb"], ["a/b"]),
        ("a[.\\-^]b", ["a.b", "a^b"], ["axb"]),
        ("./x/*", ["x/a"], ["./x/a"]),
        ("/x/*", ["x/a"], []),
        ("a+(b).jpg", ["a+(b).jpg"], ["aab.jpg"]),
        ("x**y", ["xy", "x/a/y"], ["x"]),
        ("**/*é.jpg", ["É.jpg", "x/é.JPG"], ["e.jpg"]),
    ],
)
def test_a_glob_takes_what_it_says(glob: str, taken: list[str], left: list[str]) -> None:
    takes = compile_filter([glob])
    assert [key for key in taken if not takes(key)] == []
    assert [key for key in left if takes(key)] == []


def test_exclude_comes_after_include() -> None:
    takes = compile_filter(IMAGE_GLOBS, ["**/thumbs/**", "**/*_mask.png"])
    keys = ["a.jpg", "x/b.PNG", "x/b_mask.png", "thumbs/a.jpg", "x/thumbs/y/a.jpg", "notes.txt"]
    assert [key for key in keys if takes(key)] == ["a.jpg", "x/b.PNG"]


def test_no_glob_takes_nothing() -> None:
    assert not compile_filter([])("a.jpg")


@given(
    st.text("ab.[]!-*?", max_size=8).filter(lambda glob: "**" not in glob),
    st.text("ab.[]!-AB", min_size=1, max_size=6),
)
def test_without_slashes_it_agrees_with_the_standard_library(glob: str, key: str) -> None:
    expected = re.match(fnmatch.translate(glob.removeprefix("./")), key, re.IGNORECASE) is not None
    assert compile_filter([glob])(key) == expected


@given(
    st.lists(st.sampled_from(["**", "**/", "*", "a", "/", "b"]), max_size=6).map("".join), st.text("ab/", max_size=8)
)
def test_a_suffix_and_its_pattern_mean_the_same(glob: str, key: str) -> None:
    # A leading "[a]" or so would leave the fast path; a class of one letter at the end does.
    fast, slow = compile_filter([f"{glob}**/*b"]), compile_filter([f"{glob}**/*[b]"])
    assert fast(key) == slow(key)
