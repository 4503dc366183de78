"""The device, number format and speed-ups that the models run with."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.campaign import ModelsConfig
from schemas.errors import UserError
from tasks.models.engine.switches import Engine, choose_engine

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how to compute."""

    device: str
    """cpu, cuda:N or mps."""
    precision: str
    """fp32 or bf16."""
    engine: Engine = field(default_factory=Engine)
    """Which speed-ups are on."""

    @property
    def dtype(self) -> "torch.dtype":
        """The floating type of activations."""
        import torch

        return torch.bfloat16 if self.precision == "bf16" else torch.float32


def choose_runtime(config: ModelsConfig) -> Runtime:
    """Settle `auto`, and refuse what this machine does not have.

    Sets, for the whole process and for good: torch's threads, where the campaign says how many; and, with fp32 on CUDA,
    that neither products of matrices nor convolutions are computed in TF32, whose 10 bits torch allows convolutions by
    default. That cannot be set for one call: torch has one setting for all threads, and models run in several.

    Raises:
        UserError: The device is unknown or absent, or cannot compute in the precision asked for.
    """
    import torch

    if config.cpu_threads is not None:
        torch.set_num_threads(config.cpu_threads)
    device = _device(config.device)
    precision = _precision(config.precision, device)
    if precision == "fp32" and device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return Runtime(device, precision, choose_engine(config, device))


def _precision(asked: str, device: str) -> str:
    if not device.startswith("cuda"):
        return "fp32" if asked == "auto" else asked
    has_bf16 = _computes_in_bf16(device)
    if asked == "bf16" and not has_bf16:
        raise UserError("models.precision: this GPU does not compute in bf16; use fp32 or auto")
    return ("bf16" if has_bf16 else "fp32") if asked == "auto" else asked


def _computes_in_bf16(device: str) -> bool:
    """Tell whether a CUDA device has bf16 itself; older ones emulate it, slower than fp32."""
    import torch

    # torch answers for the current device.
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _device(asked: str) -> str:
    import torch

    if asked == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if asked == "cpu":
        return asked
    if asked == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("models.device: this machine has no mps device; use cpu or auto")
        return asked
    kind, _, number = asked.partition(":")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise UserError(f"models.device: {asked!r} is no device; use auto, cpu, cuda, cuda:N or mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number or 0)
    if index >= count:
        has = f"{count} CUDA device(s)" if count else "no CUDA device"
        raise UserError(f"models.device: {asked} was asked for and this machine has {has}; use cpu or auto")
    return f"cuda:{index}"
