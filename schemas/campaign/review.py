"""How people review."""

from pydantic import Field, field_validator

from schemas.base import Strict

EMBEDDED = "embedded"
_SCHEMES = ("mongodb://", "mongodb+srv://")


class ReviewConfig(Strict):
    """The queue of `vouch review`."""

    batch: int = Field(25, ge=1, le=500, description="Items that a reviewer takes at a time.")
    lease_minutes: float = Field(
        20.0,
        ge=2,  # the App gives a sign of life every minute
        le=24 * 60,
        description="Minutes without a sign of life after which others may take the items.",
    )
    second_reviews: float = Field(
        0.0, ge=0, le=1, description="Share of labels that two people are asked about, to see how far they agree."
    )
    database: str = Field(
        EMBEDDED,
        description="embedded (one that `vouch review` runs itself), or a mongodb:// address without a "
        "password: VOUCH_MONGODB_URI holds the address with it and goes before this one.",
    )

    @field_validator("database")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value == EMBEDDED:
            return value
        if not value.startswith(_SCHEMES):
            raise ValueError("must be embedded, or an address that begins with mongodb:// or mongodb+srv://")
        # Up to the last @: a password that should have been escaped may hold any sign.
        if ":" in value.partition("://")[2].rpartition("@")[0]:
            raise ValueError("a password never stands in a campaign: put the whole address into VOUCH_MONGODB_URI")
        return value
