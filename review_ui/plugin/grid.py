"""Operators of the crop grid: many labels of one class at once."""

from typing import Any, Final, get_args

from review_ui.desk.desk import Desk
from review_ui.desk.grid import submit_grid, take_grid
from review_ui.desk.read_back import Said
from review_ui.plugin.answering import class_of
from review_ui.plugin.operator import Answer, ReviewOperator, seconds_of
from schemas.errors import VouchError

_LARGEST: Final = 200
_CROPS: Final = 48


class GridTake(ReviewOperator):
    """Takes labels of one class for the grid."""

    NAME, LABEL = "grid_take", "Take a grid of crops"

    def run(self, at: Desk, given: dict[str, Any]) -> Answer | None:
        """Take them; without a class, those of the class that comes next."""
        count = given.get("count", _CROPS)
        if not isinstance(count, int) or not 0 < count <= _LARGEST:
            raise VouchError(f"a grid has 1 to {_LARGEST} crops")
        class_name = given.get("class_name")
        if class_name is not None and not isinstance(class_name, str):
            raise VouchError("a grid is of one class")
        grid = take_grid(at, count, class_name, _names(given.get("leave")))
        return {"grid": [card["item"] for card in grid], "class_name": grid[0]["class_name"] if grid else None}


class GridSubmit(ReviewOperator):
    """Answers a whole grid."""

    NAME, LABEL = "grid_submit", "Submit the grid"

    def run(self, at: Desk, given: dict[str, Any]) -> Answer | None:
        """Those picked out get the verdict that was chosen, the others are correct; `kept` are not answered."""
        shown, wrong = (_names(given.get(name)) for name in ("shown", "wrong"))
        said = given.get("said", "not_an_object")
        if said not in get_args(Said) or said == "as_shown" or not set(wrong) <= set(shown):
            raise VouchError("a grid is answered by its items, those picked out, and what they are")
        kept = submit_grid(at, shown, wrong, seconds_of(given), said, class_of(at, given))
        return {"answered": len(shown) - len(kept), "kept": kept}


def _names(given: object) -> list[str]:
    return list(dict.fromkeys(name for name in given if isinstance(name, str))) if isinstance(given, list) else []


GRID = (GridTake, GridSubmit)
