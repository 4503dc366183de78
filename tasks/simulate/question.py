"""What to play: the user's words, checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar, get_args

from schemas.campaign import Gate, RoutingConfig
from schemas.errors import UserError
from tasks.simulate.reviewer import Errors

MOST_DRAWS: Final = 100_000

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Question:
    """What to play."""

    precisions: tuple[float, ...]
    reviews: tuple[int, ...]
    draws: int
    gate: Gate
    confidence: float
    errors: Errors
    automate: float
    """Share of labels that the answers are about."""
    plants: int = 0
    """Known-wrong labels that show what the reviewer misses."""


def ask(
    routing: RoutingConfig,
    precisions: str | None,
    reviews: str,
    draws: int,
    gate: str | None,
    missed: float,
    automate: float,
    plants: int = 0,
) -> Question:
    """Check what is asked for.

    Args:
        routing: What the campaign asks for where nothing else is said.
        precisions: Numbers between commas; None: routing.precision.
        reviews: Whole numbers between commas.
        draws: How often each is played.
        gate: delivered or accepted; None: routing.gate.
        missed: Share of wrong labels that the reviewer calls correct.
        automate: Share of labels that the answers are about.
        plants: Known-wrong labels that show what the reviewer misses.

    Raises:
        UserError: One of them makes no sense.
    """
    chosen = next((one for one in get_args(Gate) if one == (gate or routing.gate)), None)
    if chosen is None:
        raise UserError(f"--gate: {gate!r} is none; choose {' or '.join(get_args(Gate))}")
    if not 1 <= draws <= MOST_DRAWS:
        raise UserError(f"--draws: {draws} is not between 1 and {MOST_DRAWS:,}")
    for name, share in (("--missed", missed), ("--automate", automate)):
        if not 0 <= share <= 1:
            raise UserError(f"{name}: {share:g} is no share between 0 and 1")
    asked = _numbers("--precision", precisions, float) if precisions is not None else (routing.precision,)
    for precision in asked:
        if not 0.5 < precision < 1:
            raise UserError(f"--precision: {precision:g} is not between 0.5 and 1; 0.95 says 95%")
    counts = _numbers("--reviews", reviews, int)
    if min(counts) < 1:
        raise UserError(f"--reviews: {min(counts)} is no number of labels to look at; give numbers from 1 on")
    if plants < 0:
        raise UserError(f"--plants: {plants} is no number of labels")
    return Question(asked, counts, draws, chosen, routing.confidence, Errors(missed=missed), automate, plants)


def _numbers(name: str, words: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    """Different numbers between commas or spaces, ascending."""
    try:
        found = tuple(sorted({kind(word) for word in words.replace(",", " ").split()}))
    except ValueError:
        found = ()
    if not found:
        example = "0.95,0.98" if name == "--precision" else "200,400,800"
        raise UserError(f"{name}: {words!r} is no list of numbers; write {example}, say")
    return found
