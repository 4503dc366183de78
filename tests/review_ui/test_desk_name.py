"""Names of desks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from review_ui.desk_name import desk_name, reviewer_slug


@pytest.mark.parametrize(
    ("reviewer", "begins"),
    [("ann", "ann"), ("Ann", "ann-"), ("Zoë Ångström", "zo-ngstr-m-"), ("李", ""), ("a/../b", "a-b-")],
)
def test_a_slug_is_readable_and_holds_nothing_that_a_path_minds(reviewer, begins):
    slug = reviewer_slug(reviewer)
    assert slug.startswith(begins)
    assert slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_reviewers_never_share_a_desk(one, other):
    assert (desk_name("q", one) == desk_name("q", other)) == (one == other)
