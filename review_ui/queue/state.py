"""Changes of an item as update pipelines: each is atomic, by the server's clock, and ends by setting the state."""

from typing import Any, Final

Stage = dict[str, Any]

_TAKEN: Final[Stage] = {"$or": [{"$not": "$asked"}, {"$gte": [{"$add": ["$$held", "$$answered"]}, "$wanted"]}]}
_BRANCHES: Final[list[Stage]] = [
    {"case": {"$and": [{"$gt": ["$$held", 0]}, _TAKEN]}, "then": "leased"},
    {"case": {"$gte": ["$$answered", "$wanted"]}, "then": "answered"},
    {"case": "$asked", "then": "open"},
    {"case": {"$gt": ["$$answered", 0]}, "then": "answered"},
]
_ROOM: Final[Stage] = {"$lt": [{"$add": [{"$size": "$leases"}, {"$size": "$answered_by"}]}, "$wanted"]}
_COUNTS: Final[Stage] = {"held": {"$size": "$leases"}, "answered": {"$size": "$answered_by"}}
_STATE: Final[Stage] = {"$let": {"vars": _COUNTS, "in": {"$switch": {"branches": _BRANCHES, "default": "gone"}}}}
STATE: Final[Stage] = {"$set": {"state": _STATE}}
"""The last stage of every change: schemas.queue.State from leases, answers and whether the item is still asked."""


def epoch_of(item: dict[str, Any], reviewer: str) -> int:
    """The number of a reviewer's lease of an item that they hold."""
    found: int = next(one["epoch"] for one in item["leases"] if one["reviewer"] == reviewer)
    return found


def lease(reviewer: str, milliseconds: int, epoch: int | None = None) -> list[Stage]:
    """Give the item to a reviewer under the next epoch, or under one that they had."""
    number: Any = "$epoch" if epoch is None else {"$literal": epoch}
    given = {"reviewer": {"$literal": reviewer}, "until": _until(milliseconds), "epoch": number}
    stages: list[Stage] = [{"$set": {"epoch": {"$add": ["$epoch", 1]}}}] if epoch is None else []
    return [*stages, {"$set": {"leases": {"$concatArrays": ["$leases", [given]]}}}, STATE]


def renew(reviewer: str, milliseconds: int) -> list[Stage]:
    """Let the leases of a reviewer run from now on."""
    renewed = {"$mergeObjects": ["$$one", {"until": _until(milliseconds)}]}
    held = {"$cond": [{"$eq": ["$$one.reviewer", {"$literal": reviewer}]}, renewed, "$$one"]}
    return [{"$set": {"leases": {"$map": {"input": "$leases", "as": "one", "in": held}}}}]


def release(reviewer: str) -> list[Stage]:
    """End the lease of a reviewer."""
    return [*_without_lease(reviewer), STATE]


def skip(reviewer: str) -> list[Stage]:
    """End the lease of a reviewer who skips the item."""
    return [*_without_lease(reviewer), {"$set": {"skipped_by": _with("$skipped_by", reviewer)}}, STATE]


def answer(reviewer: str) -> list[Stage]:
    """End the lease of a reviewer who has answered."""
    lists = {"answered_by": _with("$answered_by", reviewer), "skipped_by": _without("$skipped_by", reviewer)}
    return [*_without_lease(reviewer), {"$set": lists}, STATE]


def take_back(reviewer: str, milliseconds: int) -> list[Stage]:
    """Remove the reviewer's answer and lease the item to them again, unless others have it by now."""
    given = {"reviewer": {"$literal": reviewer}, "until": _until(milliseconds), "epoch": "$epoch"}
    return [
        *_without_answer(reviewer),
        {"$set": {"epoch": {"$cond": [_ROOM, {"$add": ["$epoch", 1]}, "$epoch"]}}},
        {"$set": {"leases": {"$cond": [_ROOM, {"$concatArrays": ["$leases", [given]]}, "$leases"]}}},
        STATE,
    ]


def remove_answer(reviewer: str) -> list[Stage]:
    """Remove the reviewer's answer; the item is not leased to anybody."""
    return [*_without_answer(reviewer), STATE]


def ask(asked: bool) -> list[Stage]:
    """Set whether the item is still asked; what is leased stays until the lease ends."""
    return [{"$set": {"asked": asked}}, STATE]


def ask_again() -> list[Stage]:
    """Ask an item once again that was answered, of those who answered only when nothing else is left."""
    fields: dict[str, object] = {
        "asked": True, "answered_by": [], "skipped_by": "$answered_by", "wanted": 1, "again": True,
    }  # fmt: skip
    return [{"$set": fields}, STATE]


def _until(milliseconds: int) -> Stage:
    return {"$add": ["$$NOW", milliseconds]}


def _without_answer(reviewer: str) -> list[Stage]:
    return [*_without_lease(reviewer), {"$set": {"answered_by": _without("$answered_by", reviewer)}}]


def _without_lease(reviewer: str) -> list[Stage]:
    others = {"$ne": ["$$one.reviewer", {"$literal": reviewer}]}
    return [{"$set": {"leases": {"$filter": {"input": "$leases", "as": "one", "cond": others}}}}]


def _with(names: str, name: str) -> Stage:
    return {"$concatArrays": [_without(names, name), [{"$literal": name}]]}


def _without(names: str, name: str) -> Stage:
    return {"$filter": {"input": names, "as": "one", "cond": {"$ne": ["$$one", {"$literal": name}]}}}
