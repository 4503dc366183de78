"""Says which number format, and which speed-ups in it, change a model's answers beyond their last bits."""

from collections.abc import Sequence

from tasks.models.engine.switches import Engine


def numbers_of(precision: str, engine: Engine, switches: Sequence[str]) -> str:
    """Part of a backend's fingerprint.

    Args:
        precision: fp32, in which no switch changes more than the last bits; or bf16, in which another order of the same
            sums does.
        engine: Which speed-ups are on.
        switches: Those that touch what runs in bf16.
    """
    return "+".join([precision, *(name for name in switches if precision == "bf16" and engine.has(name))])
