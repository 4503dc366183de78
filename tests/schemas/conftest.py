from collections.abc import Callable

import pytest

from vouch_labels.schemas.text import Result


@pytest.fixture
def lines() -> Callable[[Result], list[str]]:
    """The lines of a result, without its tables."""
    return lambda found: [block for block in found.blocks() if isinstance(block, str)]
