"""Splits: shares, and that an image keeps its split."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.campaign import Splits
from tasks.export.splits import split_of

shares = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10)).filter(any)


def made(parts: tuple[int, int, int], seed: int = 0) -> Splits:
    total = sum(parts)
    return Splits(train=parts[0] / total, val=parts[1] / total, test=parts[2] / total, seed=seed)


@settings(deadline=None)
@given(parts=shares, seed=st.integers(0, 2**40))
def test_shares_are_kept(parts, seed):
    splits = made(parts, seed)
    found = [split_of(splits, f"image {number}") for number in range(2000)]
    for name in ("train", "val", "test"):
        share = getattr(splits, name)
        # Six standard deviations of a binomial: one false alarm in a hundred million draws.
        assert abs(found.count(name) - 2000 * share) <= 6 * (2000 * share * (1 - share)) ** 0.5


@settings(deadline=None)
@given(parts=shares, identity=st.text(), seed=st.integers(0, 100))
def test_a_split_without_a_share_gets_nothing(parts, identity, seed):
    splits = made(parts, seed)
    assert getattr(splits, split_of(splits, identity)) > 0


@settings(deadline=None)
@given(first=st.integers(0, 10), more=st.integers(0, 10), identity=st.text())
def test_a_larger_training_share_takes_images_and_gives_none_back(first, more, identity):
    small = made((first, 20 - first, 1))
    large = made((min(20, first + more), max(0, 20 - first - more), 1))
    if split_of(small, identity) == "train":
        assert split_of(large, identity) == "train"


def test_the_seed_matters_and_nothing_else():
    first, second = Splits(seed=1), Splits(seed=2)
    names = [f"image {number}" for number in range(200)]
    assert [split_of(first, name) for name in names] == [split_of(Splits(seed=1), name) for name in names]
    assert [split_of(first, name) for name in names] != [split_of(second, name) for name in names]


def test_a_known_image_keeps_its_split_for_ever():
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    splits = Splits(train=0.5, val=0.25, test=0.25)
    assert [split_of(splits, name) for name in names] == ["train", "train", "train", "val", "train", "train"]
