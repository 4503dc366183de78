"""Takes many labels of one class at once for a grid of crops, and submits their answers."""

from collections.abc import Collection, Sequence
from typing import Final

from vouch_labels.review_ui.session.read_back import Choice, DraftError, read_back, rows_if_unchanged
from vouch_labels.review_ui.session.session import GONE, ItemSummary, ReviewSession
from vouch_labels.schemas.errors import LeaseLostError
from vouch_labels.schemas.queue import Item

_CHANGED: Final = "you have changed this label, which its crop does not show: answer it by itself (Alt+T)"
_OTHERWISE: Final = "you have given another answer to this already; to change it, take it back (Alt+Z)"


def take_grid(
    session: ReviewSession, count: int, class_name: str | None = None, leave: Collection[str] = ()
) -> list[ItemSummary]:
    """Take labels of one class to be answered by their crops; without a class, of the one that comes next.

    Labels that the reviewer has drawn on are left out: their crops show them without the drawing.
    """
    with session.lock:
        drafts = session.drafts([summary["item"] for summary in session.refresh() if summary["kind"] == "label"])
        touched = [name for name, draft in drafts.items() if rows_if_unchanged(*draft[::-1], session.classes) is None]
        out = {*leave, *touched}
        if class_name is None:
            first = _hold(session, 1, out)
            class_name = first[0].class_name if first else None
        found = [] if class_name is None else _hold(session, count, out, class_name)
        wanted = {item.id for item in found[:count]}
        return [summary for summary in session.refresh() if summary["item"] in wanted]


def submit_grid(
    session: ReviewSession,
    shown: Sequence[str],
    wrong: Collection[str],
    seconds: float | None,
    choice: Choice,
    class_name: str | None = None,
) -> dict[str, str]:
    """Answer many items at once: those picked out in one way, the others as they were shown.

    Sent again, as after a reply that was lost, the same answers change nothing, and count. `seconds` were spent on all.

    Returns:
        Those that are not answered, and why; the others are.
    """
    each = None if seconds is None else seconds / max(len(shown), 1)
    trouble = {}
    with session.lock:
        drafts = session.drafts(shown)
        for name in shown:
            try:
                if name not in drafts:
                    raise DraftError(GONE)
                item, sample = drafts[name]
                rows = rows_if_unchanged(sample, item, session.classes)
                if rows is None:
                    raise DraftError(_CHANGED)
                if name in wrong:
                    rows = read_back(sample, item, session.classes, choice, class_name)
                session.submit_rows(item, rows, each)
            except (DraftError, LeaseLostError) as error:
                trouble[name] = str(error)
    for name, earlier in session.queue.answered(session.reviewer, list(trouble)).items():
        picked = choice if name in wrong else None
        right = class_name if picked == "wrong_class" else None
        if (earlier[0]["verdict"], earlier[0]["class_name"]) == (picked or "correct", right):
            del trouble[name]
        else:
            trouble[name] = _OTHERWISE
    return trouble


def _hold(session: ReviewSession, count: int, out: Collection[str], class_name: str | None = None) -> list[Item]:
    """Take labels until `count` are held that are not to be left out, or there are no more; returns those."""
    asked, before = count, -1
    while True:
        held = session.queue.take(session.reviewer, asked, kind="label", class_name=class_name)
        found = [item for item in held if item.id not in out]
        if len(found) >= count or len(held) in (before, 0):
            return found
        asked, before = len(held) + count - len(found), len(held)
