"""Which speed-ups of the models are on."""

from dataclasses import dataclass
from typing import Final

from schemas.campaign import SWITCHES, ModelsConfig, known_switch

COMPILE_AFTER: Final = 64
"""Calls of one shape that run as they are before `compile: auto` compiles it: only long runs get there."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What the models may do to be fast; the default is all of it, without compiling."""

    switches: frozenset[str] = frozenset(SWITCHES)
    """Names of schemas.campaign.SWITCHES that are on; none is the packages' own forward."""
    compile: bool = False
    """Whether torch.compile is used."""
    compile_after: int = 0
    """Calls of one shape that run as they are before it is compiled."""

    def has(self, switch: str) -> bool:
        """Tell whether a switch is on.

        Raises:
            ValueError: There is no such switch.
        """
        return known_switch(switch) in self.switches


REFERENCE: Final = Engine(frozenset())
"""The packages' own forward."""


def choose_engine(config: ModelsConfig, device: str) -> Engine:
    """Settle which speed-ups the campaign asks for.

    Args:
        config: Its `engine`, `switched_off` and `compile`.
        device: cpu, cuda:N or mps. `compile: auto` compiles on CUDA alone.
    """
    on_cuda = device.startswith("cuda")
    compiles = config.engine == "fast" and (config.compile == "on" or (config.compile == "auto" and on_cuda))
    on = frozenset(SWITCHES).difference(config.switched_off) if config.engine == "fast" else frozenset[str]()
    return Engine(on, compiles, COMPILE_AFTER if compiles and config.compile == "auto" else 0)
