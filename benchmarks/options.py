"""What can be asked of every benchmark."""

from pydantic import Field

from schemas.campaign import Strict


class Options(Strict):
    """How much is measured."""

    quick: bool = Field(False, description="Small sizes and one repetition: shows that everything works, no more.")
    huge: bool = Field(False, description="Adds the sizes that take many minutes.")
    full: bool = Field(False, description="Adds full-size models on machines without a GPU.")
