"""Shared parts of the three trainings: schedule by the clock, averaged weights, resuming, curves, weight files, cards.

Measured parts of a model card are kept current; the text around them is written by hand.
"""

import argparse
import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vouch_labels.starter.scenes.vocabulary import SPLITS

WEIGHTS = Path(__file__).parents[1] / "weights"


def training_parser(name: str, description: str | None, **defaults: float) -> argparse.ArgumentParser:
    """Command line that all trainings have, with the defaults of one."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--minutes", type=float, help="training time over all resumptions")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw scenes")
    parser.add_argument("--split", default="core", choices=[split for split in SPLITS if "heldout" not in split])
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--measure-every", type=int)
    parser.add_argument("--save-every", type=float, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=WEIGHTS.parent / ".cache")
    parser.add_argument("--work", type=Path, default=WEIGHTS.parent / ".cache" / name)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.set_defaults(**defaults)
    return parser


def prepare(options: argparse.Namespace) -> torch.device:
    """Set torch's seed and threads, and choose the device."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    available = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(available if options.device == "auto" else options.device)


@dataclass(frozen=True)
class RunOptions:
    """How a training runs.

    Attributes:
        minutes: Wall-clock length; the learning rate follows it down, so any length ends well.
        learning_rate: Peak, reached after the first few hundred steps.
        work: Folder for state and curves.
        out: Folder that the weights go to.
        save_every: Seconds between saves.
        average: Decay of the averaged weights, which are what is exported.
        flat: Share of the time at the peak learning rate, before it falls.
    """

    minutes: float
    learning_rate: float
    work: Path
    out: Path
    save_every: float = 180.0
    decay: float = 0.01
    warmup: int = 150
    average: float = 0.998
    flat: float = 0.35


def run_options(options: argparse.Namespace) -> RunOptions:
    """The options that a training's command line names."""
    return RunOptions(options.minutes, options.learning_rate, options.work, options.out, options.save_every)


class Run:
    """Drives one training; `loop` returns when its minutes are over."""

    def __init__(self, name: str, model: nn.Module, options: RunOptions, architecture: dict[str, Any]) -> None:
        """Prepare, and take up the saved state in `options.work` if there is one."""
        self.name, self.model, self.options, self.architecture = name, model, options, architecture
        self.averaged = copy.deepcopy(model).eval()
        flat = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
        matrices = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
        groups = [{"params": matrices, "weight_decay": options.decay}, {"params": flat, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)
        self.step, self.elapsed = 0, 0.0
        options.work.mkdir(parents=True, exist_ok=True)
        self._state = options.work / f"{name}.pt"
        if self._state.exists():
            state = torch.load(self._state, map_location=next(model.parameters()).device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["fused"] = True
            self.step, self.elapsed = state["step"], state["elapsed"]

    def loop(
        self,
        losses: Callable[[], dict[str, Tensor]],
        measure: Callable[[nn.Module], dict[str, float]],
        measure_every: int,
        most_steps: int | None = None,
    ) -> None:
        """Train until the minutes are over, or this many steps in all are done; then save and export.

        `losses` draws a batch and returns its losses; `measure` gives figures of the averaged model for the curve.
        """
        started, saved = time.monotonic() - self.elapsed, time.monotonic()
        end = self.options.minutes * 60
        sums: dict[str, float] = {}
        while self.elapsed < end and (most_steps is None or self.step < most_steps):
            for name, value in self._train_step(losses, self.elapsed / end).items():
                sums[name] = sums.get(name, 0.0) + value
            self.elapsed = time.monotonic() - started
            if self.step % 50 == 0:
                self._log({name: value / 50 for name, value in sums.items()})
                sums = {}
            if self.step % measure_every == 0:
                self._log(measure(self.averaged))
            if time.monotonic() - saved > self.options.save_every:
                self.save()
                saved = time.monotonic()
        self.save()
        self._log(measure(self.averaged))

    def save(self) -> None:
        """Write the state to resume from, and export the averaged weights."""
        state = {"model": self.model.state_dict(), "averaged": self.averaged.state_dict(), "step": self.step}
        state |= {"optimizer": self.optimizer.state_dict(), "elapsed": self.elapsed}
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)
        export(self.name, self.averaged, self.architecture, self.options.out)
        update_card(self.options.out / f"{self.name}.md", "training", self._facts())

    def _facts(self) -> dict[str, str]:
        device = next(self.model.parameters()).device
        place = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
        )
        return {
            "parameters": f"{sum(p.numel() for p in self.model.parameters()) / 1e6:.1f} million",
            "steps": f"{self.step:,}",
            "minutes": f"{self.elapsed / 60:.0f}",
            "machine": place,
        }

    def _train_step(self, losses: Callable[[], dict[str, Tensor]], progress: float) -> dict[str, float]:
        warm = min(1.0, (self.step + 1) / self.options.warmup)
        # Flat at first, then a cosine down to a hundredth.
        fall = max(0.0, (progress - self.options.flat) / (1 - self.options.flat))
        rate = self.options.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0))))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = losses()
        total = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(total):
            self.optimizer.zero_grad(set_to_none=True)
            return {"skipped": 1.0}
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % 2 == 0:
            # Every second step is enough, and a pass over all weights saved.
            decay = min(self.options.average, (1 + self.step) / (10 + self.step)) ** 2
            with torch.no_grad():
                pairs = zip(_tensors(self.averaged), _tensors(self.model), strict=True)
                for kept, new in pairs:
                    kept.lerp_(new, 1 - decay)
        figures = {name: float(value.detach()) for name, value in parts.items()}
        return {**figures, "loss": float(total.detach()), "norm": float(norm)}

    def _log(self, figures: dict[str, float]) -> None:
        row = {"step": self.step, "seconds": round(self.elapsed, 1), **{k: round(v, 4) for k, v in figures.items()}}
        with (self.options.work / f"{self.name}.jsonl").open("a", encoding="utf-8") as curve:
            curve.write(json.dumps(row) + "\n")


def start_from(model: nn.Module, weights: Path | None) -> None:
    """Load weights to begin from, as `export` wrote them; None leaves the model as it is.

    A grid of positions (1, H, W, C) that was learned for another input side is resized to the model's.
    """
    if weights is None:
        return
    state = load_file(weights)
    for name, tensor in model.state_dict().items():
        if name.endswith("pos_embed") and name in state and state[name].shape != tensor.shape:
            grid = state[name].float().permute(0, 3, 1, 2)
            resized = functional.interpolate(grid, tensor.shape[1:3], mode="bicubic", align_corners=False)
            state[name] = resized.permute(0, 2, 3, 1)
    model.load_state_dict(state)


def _tensors(model: nn.Module) -> list[Tensor]:
    """Weights and running statistics, each once."""
    return [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]


def export(name: str, model: nn.Module, architecture: dict[str, Any], out: Path) -> None:
    """Write NAME.safetensors (fp16) and NAME.json to `out`, and pin the SHA-256 in checksums.json."""
    out.mkdir(parents=True, exist_ok=True)
    unique: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        unique[key] = value.detach().cpu().half().contiguous().clone() if value.is_floating_point() else value.clone()
    partial = out / f"{name}.partial"
    save_file(unique, str(partial), metadata={"format": "pt"})
    partial.replace(out / f"{name}.safetensors")
    (out / f"{name}.json").write_text(json.dumps(architecture, indent=2) + "\n", encoding="utf-8")
    pinned = out / "checksums.json"
    sums = json.loads(pinned.read_text(encoding="utf-8")) if pinned.exists() else {}
    sums[f"{name}.safetensors"] = hashlib.sha256((out / f"{name}.safetensors").read_bytes()).hexdigest()
    pinned.write_text(json.dumps(dict(sorted(sums.items())), indent=2) + "\n", encoding="utf-8")


def update_card(card: Path, part: str, facts: Mapping[str, str]) -> None:
    """Replace the table between `<!-- PART -->` and `<!-- /PART -->` in a card; append it where it is missing."""
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {card.stem}\n"
    opening, closing = f"<!-- {part} -->", f"<!-- /{part} -->"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    block = f"{opening}\n| | |\n|---|---|\n{rows}\n{closing}"
    before, found, rest = text.partition(opening)
    after = rest.partition(closing)[2] if found else "\n"
    # A card without the part gets it at its end.
    text = before + block + after if found else f"{text.rstrip()}\n\n{block}\n"
    card.write_text(text, encoding="utf-8")
