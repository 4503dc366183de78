"""Builds groundingdino-py's model on the installed transformers, without asking any hub.

Architectures are the two published ones by name, others as JSON files. The text encoder is today's BERT behind the
interface that GroundingDINO calls.
"""

import json
import runpy
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.errors import CheckpointError, UserError

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerBase

_LOCK = threading.Lock()
"""The package is patched while it builds, so one thread builds at a time."""

PUBLISHED: Final = {"swin_t": "GroundingDINO_SwinT_OGC.py", "swin_b": "GroundingDINO_SwinB_cfg.py"}
"""Name -> config file in the package."""


def build_groundingdino(architecture: Mapping[str, Any], tokenizer_dir: Path) -> "nn.Module":
    """Build the package's GroundingDINO with random weights, in eval mode, on the CPU.

    Its parameters have the names of the official checkpoints. The tokenizer is BERT's; its "." separates phrases.

    Args:
        architecture: {"groundingdino": fields of the package's config files, "swin": {embed_dim, depths, num_heads,
            window_size} (absent: the package's own for `backbone`), "bert": BertConfig fields, "resize": ...}.
            Gradient checkpointing is switched off whatever it says; hidden_dim must be 256.
        tokenizer_dir: Folder of the tokenizer.

    Raises:
        CheckpointError: The architecture is incomplete or cannot be built.
        UserError: groundingdino-py is not installed.
    """
    _check_installed()
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _patched(architecture, tokenizer_dir):
                from groundingdino.models import build_model

                fields = {**architecture["groundingdino"], "use_checkpoint": False, "use_transformer_ckpt": False}
                model: nn.Module = build_model(SimpleNamespace(**fields))
        except (AssertionError, AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            raise CheckpointError(f"this GroundingDINO architecture cannot be built: {_reason(error)}") from error
    # Its forward pass uses what torch has announced to change.
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release", category=UserWarning)
    warnings.filterwarnings("ignore", message="`torch.cuda.amp.autocast", category=FutureWarning)
    return model.eval()


def _check_installed() -> None:
    if find_spec("groundingdino") is None:
        raise UserError(
            "models.detector.backend: groundingdino needs the package groundingdino-py, which is not installed; run "
            "pip install --no-deps groundingdino-py==0.4.0, or take a Grounding DINO by the backend transformers"
        )


@contextmanager
def _patched(architecture: Mapping[str, Any], tokenizer_dir: Path) -> Iterator[None]:
    """Make the package take its tokenizer, BERT and Swin from here."""
    from groundingdino.models.GroundingDINO import groundingdino as package
    from groundingdino.models.GroundingDINO import transformer
    from groundingdino.models.GroundingDINO.backbone import backbone
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
    from transformers import AutoTokenizer, BertConfig, BertModel

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
        stack.enter_context(mock.patch.object(package, "BertModelWarper", PhraseBert))
        stack.enter_context(mock.patch.object(hub, "get_tokenlizer", tokenizer))
        stack.enter_context(mock.patch.object(hub, "get_pretrained_language_model", bert))
        if architecture.get("swin"):
            stack.enter_context(mock.patch.object(backbone, "build_swin_transformer", swin))
        # It prints to stdout when an image gives infinite numbers; the caller looks for those itself.
        transformer.print = lambda *_: None
        yield


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else "an invalid combination"
    return f"{text} is missing" if isinstance(error, KeyError) else text


class Swin(Strict):
    """Sizes of the image backbone."""

    embed_dim: int = Field(ge=1, description="Channels of the first stage; doubled by each further one.")
    depths: tuple[int, int, int, int] = Field(description="Blocks a stage.")
    num_heads: tuple[int, int, int, int] = Field(description="Attention heads a stage.")
    window_size: int = Field(ge=1, description="Side of an attention window, in patches.")


class Resize(Strict):
    """Sides that images are resized to, keeping their aspect."""

    short_side: int = Field(800, ge=32, description="Pixels of the shorter side.")
    long_side: int = Field(1333, ge=32, description="Most pixels of the longer side; it wins.")


class Architecture(Strict):
    """All that building and feeding a GroundingDINO needs."""

    groundingdino: dict[str, Any] = Field({}, description="Fields of the package's config; Swin-T's where absent.")
    swin: Swin | None = Field(None, description="Backbone sizes; None: the package's own for `backbone`.")
    bert: dict[str, Any] = Field({}, description="BertConfig fields; bert-base-uncased's where absent.")
    resize: Resize = Field(Resize(), description="Input size.")


def read_architecture(chosen: str | Path | None) -> Architecture:
    """The architecture of a name, or of a JSON file with the fields of `Architecture`.

    Raises:
        CheckpointError: None is given, the name is unknown, or the file cannot be read or does not fit.
        UserError: groundingdino-py is not installed.
    """
    names = ", ".join(PUBLISHED)
    if chosen is None:
        raise CheckpointError(
            f"models.detector.architecture: the checkpoint does not say its own; set {names} or a JSON file"
        )
    if isinstance(chosen, str):
        if chosen not in PUBLISHED:
            raise CheckpointError(f"models.detector.architecture: {chosen!r} is unknown; use {names} or a JSON file")
        return Architecture(groundingdino=_package_config(PUBLISHED[chosen]))
    try:
        architecture = Architecture.model_validate(json.loads(chosen.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"cannot read {chosen}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(f"{chosen}: {place}: {first['msg']}; see a bundled model's JSON file") from error
    except ValueError as error:
        raise CheckpointError(f"{chosen} is no JSON: {error}") from error
    base = _package_config(PUBLISHED["swin_t"])
    unknown = sorted(set(architecture.groundingdino) - set(base))
    if unknown:
        raise CheckpointError(f"{chosen}: groundingdino.{unknown[0]} is no field of the package's config; remove it")
    return architecture.model_copy(update={"groundingdino": {**base, **architecture.groundingdino}})


def _package_config(name: str) -> dict[str, Any]:
    """Fields of a config file of the installed package (a Python file of plain assignments)."""
    _check_installed()
    import groundingdino

    path = Path(groundingdino.__file__).parent / "config" / name
    return {field: value for field, value in runpy.run_path(str(path)).items() if not field.startswith("_")}


class PhraseBert(nn.Module):
    """Runs a BertModel under a full attention mask, so that phrases of one caption do not see each other.

    The package's own wrapper calls methods that transformers 5 no longer has. This one owns the same three
    submodules under the same names, hence reads the same checkpoints.
    """

    def __init__(self, bert_model: "BertModel") -> None:
        """Take over the model's embeddings, encoder and pooler."""
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler  # part of the checkpoints; its output is not used

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        **_unused: object,  # whatever else a tokenizer returns
    ) -> dict[str, Tensor]:
        """Encode (B, T) tokens: {"last_hidden_state": (B, T, D)}.

        The mask is (B, T, T), True where row may look at column; (B, T) is widened to all rows. Positions are counted
        from 0 within each phrase.
        """
        embedded = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
        allowed = attention_mask[:, None, :, :] if attention_mask.dim() == 3 else attention_mask[:, None, None, :]
        least = torch.finfo(embedded.dtype).min
        additive = torch.zeros_like(allowed, dtype=embedded.dtype).masked_fill(~allowed.bool(), least)
        hidden = self.encoder(embedded, attention_mask=additive)
        return {"last_hidden_state": hidden[0]}
