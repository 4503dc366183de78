"""Which images and which classes are the same."""

import string

from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.tasks.evaluate.pairing import pair_classes, pair_images

paths = st.lists(
    st.lists(st.sampled_from(string.ascii_lowercase[:3]), min_size=1, max_size=3).map("/".join), unique=True, max_size=8
)


def test_equal_names():
    found = pair_images(["a.jpg", "b/c.jpg", "x.jpg"], ["b/c.jpg", "a.jpg", "y.jpg"])
    assert (found.rule, found.places, found.ambiguous) == ("file_name", {"a.jpg": 1, "b/c.jpg": 0}, [])


def test_ends_count_for_those_that_have_no_equal():
    found = pair_images(["a.jpg", "sub/b.jpg", "sub/a.jpg"], ["a.jpg", "b.jpg"])
    assert (found.rule, found.places, found.ambiguous) == ("both", {"a.jpg": 0, "sub/b.jpg": 1}, [])
    found = pair_images(["a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "../label/b.jpg", "train/c.jpg"])
    assert found.places == {"a.jpg": 0, "b.jpg": 1, "c.jpg": 2}
    found = pair_images(["train/a.jpg", "train/b.jpg", "ab.jpg"], ["a.jpg", "x/train/b.jpg", "b.jpg"[1:]])
    assert (found.rule, found.places) == ("path_end", {"train/a.jpg": 0, "train/b.jpg": 1})


def test_ends_that_several_share():
    found = pair_images(["x/a.jpg", "y/a.jpg", "x/b.jpg"], ["a.jpg", "b.jpg"])
    assert (found.places, sorted(found.ambiguous)) == ({"x/b.jpg": 1}, ["x/a.jpg", "y/a.jpg"])
    found = pair_images(["a.jpg"], ["x/a.jpg", "y/a.jpg"])
    assert (found.places, found.ambiguous) == ({}, ["a.jpg"])


@given(keys=paths, names=paths)
def test_no_image_is_paired_twice_and_all_pairs_end_alike(keys, names):
    found = pair_images(keys, names)
    assert len(set(found.places.values())) == len(found.places)
    for key, place in found.places.items():
        assert f"/{key}".endswith(f"/{names[place]}") or f"/{names[place]}".endswith(f"/{key}")
    common = set(keys) & set(names)
    assert {key: found.places.get(key) for key in common} == {name: names.index(name) for name in common}
    by_end = len(found.places) - len(common)
    assert found.rule == ("both" if common and by_end else "path_end" if by_end else "file_name")
    assert not set(found.ambiguous) & found.places.keys()


def test_classes_by_name():
    found = pair_classes(["cat", "Dog", "heron"], {1: " dog", 2: "CAT", 5: "wolf", 9: "cat"})
    assert (found.common, found.run_only, found.truth_only) == (("cat", "Dog"), ("heron",), ("wolf",))
    assert found.place_of_category == {1: 1, 2: 0, 9: 0}


def test_classes_that_differ_in_case_alone():
    found = pair_classes(["Cat", "cat"], {1: "cat", 2: "CAT"})
    assert found.common == ("Cat", "cat")
    assert found.place_of_category == {1: 1, 2: 0}


def test_former_names_stand_for_the_classes_that_were_made_of_them():
    found = pair_classes(["hound", "pet", "cat"], {1: "Dog", 2: "hamster", 3: "cat", 4: "hound"},
                         {"dog": "hound", "hamster": "pet", "cat": "pet"})  # fmt: skip
    assert found.place_of_category == {1: 0, 2: 1, 3: 2, 4: 0}  # a name that a class has now is no former one
    assert found.former == {"Dog": "hound", "hamster": "pet"}
    assert found.truth_only == ()


def test_no_common_class():
    assert pair_classes(["cat"], {1: "dog"}).common == ()
