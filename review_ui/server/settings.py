"""What the process of one reviewer is told when it starts."""

from pydantic import Field

from review_ui.guard.settings import GuardSettings
from schemas.campaign import Source, Strict


class ServerSettings(Strict):
    """One line of JSON on standard input, since arguments and environments can be read by others."""

    guard: GuardSettings = Field(description="Whose desk, and who may come in.")
    source: Source = Field(description="Where the images lie; a folder by its absolute path.")
    socket: int = Field(description="Descriptor of the socket to answer on; it is bound already.")
