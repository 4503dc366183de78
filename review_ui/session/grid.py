"""Takes many labels of one class at once for a grid of crops, and submits their answers."""

from collections.abc import Collection, Sequence
from typing import Final

from vouch_labels.review_ui.session.read_back import Document, DraftError, Row, Said, read_back, rows_as_laid
from vouch_labels.review_ui.session.session import GONE, Card, Desk
from vouch_labels.schemas.errors import LeaseLostError
from vouch_labels.schemas.queue import Item, VerdictRow

_CHANGED: Final = "you have changed this label, which its crop does not show: answer it by itself (Alt+T)"
_OTHERWISE: Final = "another answer of yours to this stands already; to change it, take it back (Alt+Z)"


def take_grid(desk: Desk, count: int, class_name: str | None = None, leave: Collection[str] = ()) -> list[Card]:
    """Take labels of one class to be answered by their crops.

    A label with a drawing of the reviewer's is left out, as its crop shows it without.

    Args:
        desk: Where they are laid out.
        count: How many at the most.
        class_name: The class; the one that comes next where none is named.
        leave: Items that shall not be among them.
    """
    with desk.lock:
        labels = [card["item"] for card in desk.refresh() if card["kind"] == "label"]
        out = {*leave, *_touched(desk, labels)}
        if class_name is None:
            first = _hold(desk, 1, out)
            class_name = first[0].class_name if first else None
        found = [] if class_name is None else _hold(desk, count, out, class_name)
        wanted = {item.id for item in found[:count]}
        return [card for card in desk.refresh() if card["item"] in wanted]


def submit_grid(
    desk: Desk,
    shown: Sequence[str],
    wrong: Collection[str],
    seconds: float | None,
    said: Said,
    class_name: str | None = None,
) -> dict[str, str]:
    """Answer many items at once: those picked out in one way, the others as they were laid out.

    Sent again, as after a reply that was lost, the same answers change nothing, and count.

    Args:
        desk: Where they lie.
        shown: All items of the grid.
        wrong: Those picked out.
        seconds: Time spent on all of them.
        said: What those picked out are.
        class_name: The right class, if that is what they are.

    Returns:
        Those that are not answered, and why; the others are.
    """
    each = None if seconds is None else seconds / max(len(shown), 1)
    trouble = {}
    with desk.lock:
        drafts = desk.drafts(shown)
        for name in shown:
            try:
                if name not in drafts:
                    raise DraftError(GONE)
                item, sample = drafts[name]
                rows = _rows(desk, item, sample, said if name in wrong else None, class_name)
                desk.hand_in(item, rows, each)
            except (DraftError, LeaseLostError) as error:
                trouble[name] = str(error)
    for name, stands in desk.queue.answered(desk.reviewer, list(trouble)).items():
        if _says(stands, said if name in wrong else None, class_name):
            del trouble[name]
        else:
            trouble[name] = _OTHERWISE
    return trouble


def _rows(desk: Desk, item: Item, sample: Document, picked: Said | None, class_name: str | None) -> list[Row]:
    rows = rows_as_laid(sample, item, desk.classes)
    if rows is None:
        raise DraftError(_CHANGED)
    return rows if picked is None else read_back(sample, item, desk.classes, picked, class_name)


def _says(stands: Sequence[VerdictRow], picked: Said | None, class_name: str | None) -> bool:
    """Whether an answer that stands is the one that is given now."""
    right = class_name if picked == "wrong_class" else None
    return (stands[0]["verdict"], stands[0]["class_name"]) == (picked or "correct", right)


def _hold(desk: Desk, count: int, out: Collection[str], class_name: str | None = None) -> list[Item]:
    """Take labels until `count` are held that are not to be left out, or there are no more; gives those."""
    asked, before = count, -1
    while True:
        held = desk.queue.take(desk.reviewer, asked, kind="label", class_name=class_name)
        found = [item for item in held if item.id not in out]
        if len(found) >= count or len(held) in (before, 0):
            return found
        asked, before = len(held) + count - len(found), len(held)


def _touched(desk: Desk, labels: Sequence[str]) -> list[str]:
    """Labels that do not lie as they were laid out."""
    drafts = desk.drafts(labels)
    return [name for name, (item, sample) in drafts.items() if rows_as_laid(sample, item, desk.classes) is None]
