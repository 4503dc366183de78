"""Settings of reviews."""

import pytest

from vouch_labels.schemas.campaign import ReviewConfig
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.errors import CampaignError

SECRET = "correct-horse"


@pytest.fixture
def problem(tmp_path):
    def found(review):
        path = tmp_path / "campaign.yaml"
        path.write_text(f"source: ./images\nworkspace: ./workspace\nclasses: [cat]\nreview: {review}\n")
        with pytest.raises(CampaignError) as error:
            load_campaign(path)
        return str(error.value)

    return found


@pytest.mark.parametrize(
    "address",
    ["embedded", "mongodb://host", "mongodb://ann@host:27017/?tls=true", "mongodb+srv://cluster.example.org"],
)
def test_addresses_without_a_password_are_taken(address):
    assert ReviewConfig(database=address).database == address


@pytest.mark.parametrize(
    "address", ["mongodb://ann:{}@host", "mongodb+srv://ann:{}@host/x", "mongodb://ann:{}@one,two"]
)
def test_a_password_is_refused_and_not_repeated(problem, address):
    said = problem(f"{{database: '{address.format(SECRET)}'}}")
    assert (
        "review.database: a password never stands in a campaign: put the whole address into VOUCH_MONGODB_URI" in said
    )
    assert SECRET not in said


@pytest.mark.parametrize(
    ("review", "said"),
    [
        ("{database: 'postgres://host'}", "must be embedded, or an address that begins with mongodb://"),
        ("{batch: 0}", "review.batch: must be at least 1"),
        ("{lease_minutes: 1}", "review.lease_minutes: must be at least 2"),
        ("{second_reviews: 1.5}", "review.second_reviews: must be at most 1"),
        ("{leases: 5}", "review.leases: unknown key"),
    ],
)
def test_what_is_no_setting_is_told(problem, review, said):
    assert said in problem(review)
