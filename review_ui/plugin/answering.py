"""Operators that answer one item, or take the answer back."""

from typing import Any

from review_ui.desk.desk import Desk
from review_ui.desk.read_back import Said
from review_ui.plugin.operator import Answer, ReviewOperator, item_of, seconds_of
from schemas.errors import VouchError


class _Answering(ReviewOperator):
    SAID: Said

    def run(self, at: Desk, given: dict[str, Any]) -> Answer | None:
        """Submit it."""
        at.submit(item_of(given), seconds_of(given), self.SAID)
        return None


class Submit(_Answering):
    """Answers as it is on the screen: correct if nothing was changed."""

    NAME, LABEL, SAID = "submit", "Submit as shown", "as_shown"


class Reject(_Answering):
    """Says that there is no object."""

    NAME, LABEL, SAID = "reject", "Not an object", "not_an_object"


class BadBox(_Answering):
    """Says that the box does not fit."""

    NAME, LABEL, SAID = "bad_box", "Bad box", "bad_box"


class WrongClass(ReviewOperator):
    """Says that the object is of another class."""

    NAME, LABEL = "wrong_class", "Wrong class"

    def run(self, at: Desk, given: dict[str, Any]) -> Answer | None:
        """Submit it with the class, where it is one of the campaign's."""
        at.submit(item_of(given), seconds_of(given), "wrong_class", class_of(at, given))
        return None


class Undo(ReviewOperator):
    """Takes the last answer back."""

    NAME, LABEL = "undo", "Undo the last answer"

    def run(self, at: Desk, _given: dict[str, Any]) -> Answer | None:
        """The item is on the desk again."""
        undone = at.undo()
        if undone is None:
            raise VouchError("there is no answer of yours to take back")
        return undone._asdict()


def class_of(at: Desk, given: dict[str, Any]) -> str | None:
    """The right class that a request names; None: none of the campaign's.

    Raises:
        VouchError: It is not the campaign's.
    """
    name = given.get("class_name")
    if name is not None and name not in at.classes:
        raise VouchError(f"{name!r} is no class of this campaign; choose one of the list")
    return name


ANSWERING = (Submit, Reject, BadBox, WrongClass, Undo)
