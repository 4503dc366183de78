from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from vouch_labels.schemas.reviews import VERDICTS


@pytest.fixture
def verdicts() -> Callable[..., pa.Table]:
    """A table of verdicts, all of one time and, unless they say otherwise, of one person."""

    def make(*rows: dict[str, Any]) -> pa.Table:
        usual = {"reviewer": "ann", "simulated": False, "reviewed_at": datetime(2026, 3, 4, tzinfo=UTC)}
        boxes = [dict(zip(("x0", "y0", "x1", "y1"), row.get("box", [None] * 4), strict=True)) for row in rows]
        full = [dict.fromkeys(VERDICTS.names) | usual | box | row for row, box in zip(rows, boxes, strict=True)]
        names = VERDICTS.names
        return pa.Table.from_pylist([{name: row[name] for name in names} for row in full], schema=VERDICTS)

    return make
