"""Counts the looks at certification labels: each spends a part of delta, so each is written down before it is used."""

import re
from typing import Final

from pydantic import Field, ValidationError

from schemas.campaign import Strict
from schemas.errors import StoreError
from tasks.store.store import Store

_RECORD: Final = re.compile(r"(\d+)\.json")


class Look(Strict):
    """runs/<run>/looks/<number>.json."""

    number: int = Field(ge=1, description="1, 2, 3 ... within the run.")
    look: int = Field(ge=1, description="The same among looks at labels of these inputs: what delta is shared out by.")
    key: str = Field(description="Fingerprint of all that the result depends on: the same key is the same look.")
    inputs: dict[str, str] = Field(description="What the labels depended on -> its fingerprint.")
    plans: tuple[int, ...] = Field(description="Numbers of the review plans whose verdicts were looked at.")
    precision: float = Field(description="T that was tested.")
    confidence: float = Field(description="1 - delta that was asked for.")
    created: str = Field(description="Date and time, ISO 8601, UTC.")


def read_looks(workspace: Store, run: str) -> list[Look]:
    """Read the looks of a run in their order.

    Raises:
        StoreError: A record is damaged.
    """
    folder = _folder(run)
    names = (_RECORD.fullmatch(info.key.removeprefix(folder)) for info in workspace.list(folder))
    return [_read(workspace, run, number) for number in sorted(int(name[1]) for name in names if name)]


def number_of_look(workspace: Store, run: str, look: Look) -> int:
    """Which look this is, or would be, among looks at labels of its inputs; nothing is written.

    Raises:
        StoreError: A record is damaged.
    """
    same = next((one.look for one in read_looks(workspace, run) if one.key == look.key), None)
    return same or 1 + looks_so_far(workspace, run, look.inputs)


def looks_so_far(workspace: Store, run: str, inputs: dict[str, str]) -> int:
    """How many looks at labels of these inputs were taken.

    Raises:
        StoreError: A record is damaged.
    """
    return sum(one.inputs == inputs for one in read_looks(workspace, run))


def take_look(workspace: Store, run: str, look: Look) -> Look:
    """Write a look down under the next number, unless there is one of its key.

    Other precisions asked of the same labels are other looks, for each is another chance to be wrong. Labels of other
    models are other labels with a promise of their own, so delta is shared out among looks of equal inputs.

    Args:
        workspace: The workspace.
        run: Name of the run.
        look: The look; its numbers are set here.

    Returns:
        The look as it stands.

    Raises:
        StoreError: A record is damaged, or the workspace cannot be written.
    """
    while True:
        looks = read_looks(workspace, run)
        if same := next((one for one in looks if one.key == look.key), None):
            return same
        number = max((one.number for one in looks), default=0) + 1
        alike = sum(one.inputs == look.inputs for one in looks)
        taken = look.model_copy(update={"number": number, "look": alike + 1})
        if workspace.put(_key(run, taken.number), taken.model_dump_json(indent=1).encode() + b"\n", if_absent=True):
            return taken


def _read(workspace: Store, run: str, number: int) -> Look:
    key = _key(run, number)
    try:
        return Look.model_validate_json(workspace.get(key).data)
    except ValidationError:
        raise StoreError(
            f"{workspace.uri}/{key} is damaged; restore it: without it nobody knows how much confidence is spent"
        ) from None


def _folder(run: str) -> str:
    return f"runs/{run}/looks/"


def _key(run: str, number: int) -> str:
    return f"{_folder(run)}{number}.json"
