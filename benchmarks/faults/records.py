"""What is counted of each fault, and how often it is tried; an interrupted measurement goes on."""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from benchmarks.campaigns import Options
from vouch_labels.schemas.campaign import Strict


class Counts(Strict):
    """How often each fault is tried."""

    kills: int = Field(20, description="SIGKILLs that meet a run at work.")
    terms: int = Field(5, description="SIGTERMs.")
    interrupts: int = Field(5, description="SIGINTs.")
    levels: int = Field(10, description="Levels at which the disk is full.")
    images: int = Field(60, description="Images of each campaign.")
    delay_s: float = Field(0.2, description="Seconds that a delayed answer of the S3 server is late.")

    @classmethod
    def of(cls, options: Options) -> "Counts":
        """Those of an option of the command."""
        if options.quick:
            return cls(kills=1, terms=1, interrupts=1, levels=1, images=8, delay_s=0.01)
        return cls(kills=100, terms=30, interrupts=30, delay_s=3) if options.full else cls()


class Record(Strict):
    """What came of one campaign under one fault."""

    fault: str = Field(description="Which; records of the same one are added up.")
    times: int = Field(description="Runs that met it.")
    as_said: int = Field(description="Of them, those that ended with an exit code that is documented for it.")
    free: int = Field(description="Of them, those after which the lock could be had at once.")
    orphans: int = Field(description="Processes that were left when their run had ended.")
    same: bool = Field(description="Whether the workspace holds the same bytes as an undisturbed one in the end.")
    runs: int = Field(description="Runs until then, those that met the fault included.")
    seconds: float = Field(0.0, description="Of the runs that met it, where it does not end them.")
    undisturbed_s: float = Field(0.0, description="Of a run without it.")
    spoilt: int = Field(0, description="Requests that were spoilt.")
    requests: int = Field(0, description="Requests in all.")


class Journal:
    """A file with a line a campaign that was measured."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self._path = path
        self._kept: dict[str, Record] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, record = line.partition("\t")
                self._kept[name] = Record.model_validate_json(record)

    def get(self, name: str, measure: Callable[[], Record]) -> Record:
        """Give the record of this name, which is measured unless it was."""
        if name not in self._kept:
            self._kept[name] = measure()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{name}\t{self._kept[name].model_dump_json()}\n")
        return self._kept[name]
