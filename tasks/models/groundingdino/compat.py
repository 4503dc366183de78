"""Builds groundingdino-py's model on today's transformers, without asking any hub."""

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from schemas.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_LOCK = threading.Lock()
"""The package is patched while it builds, so one thread builds at a time."""


def build_groundingdino(architecture: Mapping[str, Any], tokenizer_dir: Path) -> "nn.Module":
    """Build the package's GroundingDINO with random weights, in eval mode, on the CPU.

    Args:
        architecture: {"groundingdino": fields of the package's config files, "swin": {embed_dim, depths, num_heads,
            window_size} (absent: the package's own for `backbone`), "bert": BertConfig fields, "resize": ...}.
            Gradient checkpointing is switched off whatever it says; hidden_dim must be 256.
        tokenizer_dir: Folder with a BERT tokenizer, whose "." separates phrases.

    Returns:
        groundingdino.models.GroundingDINO.groundingdino.GroundingDINO, with the parameter names of the official
        checkpoints.

    Raises:
        CheckpointError: The architecture is incomplete or cannot be built.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _patched(architecture, tokenizer_dir):
                from groundingdino.models import build_model

                fields = {**architecture["groundingdino"], "use_checkpoint": False, "use_transformer_ckpt": False}
                model: nn.Module = build_model(SimpleNamespace(**fields))
        except (AssertionError, AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            raise CheckpointError(f"this GroundingDINO architecture cannot be built: {_said(error)}") from error
    # Its forward pass uses what torch has announced to change.
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release", category=UserWarning)
    warnings.filterwarnings("ignore", message="`torch.cuda.amp.autocast", category=FutureWarning)
    return model.eval()


@contextmanager
def _patched(architecture: Mapping[str, Any], tokenizer_dir: Path) -> Iterator[None]:
    """Make the package take its tokenizer, BERT and Swin from here."""
    from groundingdino.models.GroundingDINO import groundingdino as package
    from groundingdino.models.GroundingDINO import transformer
    from groundingdino.models.GroundingDINO.backbone import backbone
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    from tasks.models.groundingdino.bert import PhraseBert

    def swin(_name: str, pretrain_img_size: int, **options: object) -> "nn.Module":
        built: nn.Module = SwinTransformer(pretrain_img_size, **{**architecture["swin"], **options})
        return built

    def tokenizer(_name: str) -> "PreTrainedTokenizerBase":
        return AutoTokenizer.from_pretrained(str(tokenizer_dir))

    def bert(_name: str) -> "nn.Module":
        built: nn.Module = BertModel(BertConfig(**architecture.get("bert", {})))
        return built

    hub: ModuleType = package.get_tokenlizer
    with ExitStack() as stack:
        stack.enter_context(_swapped(package, "BertModelWarper", PhraseBert))
        stack.enter_context(_swapped(hub, "get_tokenlizer", tokenizer))
        stack.enter_context(_swapped(hub, "get_pretrained_language_model", bert))
        if architecture.get("swin"):
            stack.enter_context(_swapped(backbone, "build_swin_transformer", swin))
        # It prints to stdout when an image gives infinite numbers; the caller looks for those itself.
        transformer.print = _silent
        yield


@contextmanager
def _swapped(module: ModuleType, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _silent(*_words: object) -> None:
    return None


def _said(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else "an invalid combination"
    return f"{text} is missing" if isinstance(error, KeyError) else text
