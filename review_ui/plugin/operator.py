"""What all operators of the review share: they answer with the desk, and tell errors in one line."""

import logging
from typing import Any, Final

import fiftyone.operators as foo

from review_ui.desk.desk import Desk
from review_ui.plugin.seat import desk
from schemas.errors import VouchError

Answer = dict[str, Any]

_BROKEN: Final = "this failed; the log of the review says why (nothing that you submitted is lost)"

logger = logging.getLogger(__name__)


class ReviewOperator(foo.Operator):  # type: ignore[misc] # fiftyone has no types
    """An operator whose result is {cards, error or not, and what `run` adds}.

    review_ui/browser/src/api.js reads the result; people who run it in another way are told of errors by FiftyOne.
    """

    NAME: str
    LABEL: str

    @property
    def config(self) -> foo.OperatorConfig:
        """How it is called; it is for our keys and buttons, not for the list of operators."""
        return foo.OperatorConfig(name=self.NAME, label=self.LABEL, unlisted=True)

    def run(self, at: Desk, given: dict[str, Any]) -> Answer | None:
        """Do it.

        Args:
            at: The desk.
            given: Parameters of the request.

        Returns:
            What to add to the answer.

        Raises:
            VouchError: In one line for the reviewer.
        """
        raise NotImplementedError

    def execute(self, ctx: foo.ExecutionContext) -> Answer:
        """Do it, and tell how the desk looks then."""
        try:
            at = desk()
        except VouchError as error:
            return self._failed(ctx, str(error))
        try:
            added = self.run(at, ctx.params)
        except VouchError as error:
            return {"cards": at.cards(), **self._failed(ctx, str(error))}
        except Exception:
            logger.exception("%s failed", self.NAME)
            return self._failed(ctx, _BROKEN)
        return {"cards": at.cards(), **(added or {})}

    def _failed(self, ctx: foo.ExecutionContext, words: str) -> Answer:
        ctx.ops.notify(words, variant="error")
        return {"error": words}


def item_of(given: dict[str, Any]) -> str:
    """The item that a request is about.

    Raises:
        VouchError: It names none.
    """
    item = given.get("item")
    if not isinstance(item, str):
        raise VouchError("open an item first")
    return item


def seconds_of(given: dict[str, Any]) -> float | None:
    """Time spent as the browser measured it; None where it did not."""
    seconds = given.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and seconds == seconds and seconds >= 0 else None
