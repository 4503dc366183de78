from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from vouch_labels.schemas.reviews import VERDICTS

START = datetime(2026, 3, 4, tzinfo=UTC)


@pytest.fixture
def verdicts() -> Callable[..., pa.Table]:
    """A table of verdicts; at: minutes after START, or None."""

    def make(*rows: dict[str, Any]) -> pa.Table:
        full = []
        for row in rows:
            at = row.get("at", 0)
            full.append(
                dict.fromkeys(VERDICTS.names)
                | {"reviewer": "ann", "simulated": False, "verdict": "correct"}
                | {"reviewed_at": None if at is None else START + timedelta(minutes=at)}
                | dict(zip(("x0", "y0", "x1", "y1"), row.get("box", [None] * 4), strict=True))
                | {name: value for name, value in row.items() if name not in ("at", "box")}
            )
        return pa.Table.from_pylist(full, schema=VERDICTS)

    return make
