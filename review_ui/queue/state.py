"""Changes of an item as update pipelines: each is atomic, by the server's clock, and ends by stating how it stands."""

from typing import Any, Final

Stage = dict[str, Any]

_TAKEN: Final[Stage] = {"$or": [{"$not": "$asked"}, {"$gte": [{"$add": ["$$held", "$$said"]}, "$wanted"]}]}
_BRANCHES: Final[list[Stage]] = [
    {"case": {"$and": [{"$gt": ["$$held", 0]}, _TAKEN]}, "then": "leased"},
    {"case": {"$gte": ["$$said", "$wanted"]}, "then": "answered"},
    {"case": "$asked", "then": "open"},
    {"case": {"$gt": ["$$said", 0]}, "then": "answered"},
]
_ROOM: Final[Stage] = {"$lt": [{"$add": [{"$size": "$leases"}, {"$size": "$answered_by"}]}, "$wanted"]}
_COUNTS: Final[Stage] = {"held": {"$size": "$leases"}, "said": {"$size": "$answered_by"}}
_STATE: Final[Stage] = {"$let": {"vars": _COUNTS, "in": {"$switch": {"branches": _BRANCHES, "default": "gone"}}}}
STATE: Final[Stage] = {"$set": {"state": _STATE}}
"""The last stage of every change: schemas.queue.State from leases, answers and whether the item is still asked."""


def lease(reviewer: str, milliseconds: int, epoch: int | None = None) -> list[Stage]:
    """Give the item to a reviewer under the next epoch, or under one that he had."""
    number: Any = "$epoch" if epoch is None else {"$literal": epoch}
    given = {"reviewer": {"$literal": reviewer}, "until": _until(milliseconds), "epoch": number}
    stages: list[Stage] = [{"$set": {"epoch": {"$add": ["$epoch", 1]}}}] if epoch is None else []
    return [*stages, {"$set": {"leases": {"$concatArrays": ["$leases", [given]]}}}, STATE]


def renew(reviewer: str, milliseconds: int) -> list[Stage]:
    """Let the leases of a reviewer run from now on."""
    renewed = {"$mergeObjects": ["$$one", {"until": _until(milliseconds)}]}
    held = {"$cond": [_is("$$one.reviewer", reviewer), renewed, "$$one"]}
    return [{"$set": {"leases": {"$map": {"input": "$leases", "as": "one", "in": held}}}}]


def release(reviewer: str) -> list[Stage]:
    """End the lease of a reviewer."""
    return [*_without_lease(reviewer), STATE]


def skip(reviewer: str) -> list[Stage]:
    """End the lease of a reviewer who does not know."""
    return [*_without_lease(reviewer), {"$set": {"skipped_by": _with("$skipped_by", reviewer)}}, STATE]


def answer(reviewer: str) -> list[Stage]:
    """End the lease of a reviewer who has answered."""
    said = {
        "answered_by": _with("$answered_by", reviewer),
        "skipped_by": _without("$skipped_by", reviewer),
    }
    return [*_without_lease(reviewer), {"$set": said}, STATE]


def take_back(reviewer: str, milliseconds: int) -> list[Stage]:
    """Let the item be as if the reviewer had not answered, and his again, unless others have it by now."""
    given = {"reviewer": {"$literal": reviewer}, "until": _until(milliseconds), "epoch": "$epoch"}
    return [
        *_unsaid(reviewer),
        {"$set": {"epoch": {"$cond": [_ROOM, {"$add": ["$epoch", 1]}, "$epoch"]}}},
        {"$set": {"leases": {"$cond": [_ROOM, {"$concatArrays": ["$leases", [given]]}, "$leases"]}}},
        STATE,
    ]


def unsay(reviewer: str) -> list[Stage]:
    """Let the item be as if the reviewer had not answered, and nobody's."""
    return [*_unsaid(reviewer), STATE]


def ask(asked: bool) -> list[Stage]:
    """Say whether the item is still asked; what is leased stays until the lease ends."""
    return [{"$set": {"asked": asked}}, STATE]


def ask_again() -> list[Stage]:
    """Ask an item anew that was answered, also of those who did."""
    anew: dict[str, object] = {"asked": True, "answered_by": [], "skipped_by": [], "wanted": 1}
    return [{"$set": anew}, STATE]


def _until(milliseconds: int) -> Stage:
    return {"$add": ["$$NOW", milliseconds]}


def _unsaid(reviewer: str) -> list[Stage]:
    return [*_without_lease(reviewer), {"$set": {"answered_by": _without("$answered_by", reviewer)}}]


def _without_lease(reviewer: str) -> list[Stage]:
    others = {"$ne": ["$$one.reviewer", {"$literal": reviewer}]}
    return [{"$set": {"leases": {"$filter": {"input": "$leases", "as": "one", "cond": others}}}}]


def _with(names: str, name: str) -> Stage:
    return {"$concatArrays": [_without(names, name), [{"$literal": name}]]}


def _without(names: str, name: str) -> Stage:
    return {"$filter": {"input": names, "as": "one", "cond": {"$ne": ["$$one", {"$literal": name}]}}}


def _is(field: str, value: str) -> Stage:
    return {"$eq": [field, {"$literal": value}]}
