"""Sizes of the starter models, as the JSON files beside the weights state them, and their WordPiece tokenizer."""

import pydoc_data.topics
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any

from transformers import BertTokenizerFast

from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, EXTENDED

TEXT_LENGTH = 256

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TEMPLATE_WORDS = "a an the photo picture image drawing of one some small large big old new and or with in on"
_MORE_COLOURS = "pink brown black white grey gray orange violet golden silver dark light bright"
_ENDINGS = (
    "s es ed er ers ing ings ly ness ment tion sion able ible ful less ous ive al ic ish y ies est ist ism ity ty th "
    "en on in an er or ar le el et it at ot ut ch sh ck ll ss tt st nd nt ng rd rt ight ound own ain ate age ance "
    "ence ant ent ard berry boat bird board box book fish man men house hopper light line port ship side stick "
    "stone time top tree ward way wood work phone scope cycle craft plane ball"
)


def detector_architecture(
    vocabulary_size: int,
    width: int = 32,
    depths: tuple[int, ...] = (2, 2, 2, 2),
    queries: int = 30,
    short_side: int = 192,
) -> dict[str, Any]:
    """Build arguments of the starter GroundingDINO, of a Swin of this width and depths of its four stages.

    `queries` are boxes that the decoder follows, more than any scene has objects. Images are resized to `short_side`
    pixels; the long side follows, up to 1.6 times as much.
    """
    groundingdino = {
        "modelname": "groundingdino",
        "backbone": "swin_T_224_1k",
        "position_embedding": "sine",
        "pe_temperatureH": 20,
        "pe_temperatureW": 20,
        "return_interm_indices": [1, 2, 3],
        "backbone_freeze_keywords": None,
        "enc_layers": 1,
        "dec_layers": 2,
        "pre_norm": False,
        "dim_feedforward": 512,
        "hidden_dim": 256,
        "dropout": 0.0,
        "nheads": 8,
        "num_queries": queries,
        "query_dim": 4,
        "num_patterns": 0,
        "num_feature_levels": 3,
        "enc_n_points": 1,
        "dec_n_points": 4,
        "two_stage_type": "standard",
        "two_stage_bbox_embed_share": False,
        "two_stage_class_embed_share": False,
        "transformer_activation": "relu",
        "dec_pred_bbox_embed_share": True,
        "dn_box_noise_scale": 1.0,
        "dn_label_noise_ratio": 0.5,
        "dn_label_coef": 1.0,
        "dn_bbox_coef": 1.0,
        "embed_init_tgt": True,
        "dn_labelbook_size": 2000,
        "max_text_len": TEXT_LENGTH,
        "text_encoder_type": "bert-base-uncased",
        "use_text_enhancer": True,
        "use_fusion_layer": True,
        "use_checkpoint": False,
        "use_transformer_ckpt": False,
        "use_text_cross_attention": True,
        "text_dropout": 0.0,
        "fusion_dropout": 0.0,
        "fusion_droppath": 0.0,
        "sub_sentence_present": True,
    }
    return {
        "groundingdino": groundingdino,
        "swin": {
            "embed_dim": width,
            "depths": list(depths),
            "num_heads": [max(width * 2**stage // 32, 1) for stage in range(4)],
            "window_size": 6,
        },
        "bert": {
            "vocab_size": vocabulary_size,
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": TEXT_LENGTH,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "resize": {"short_side": short_side, "long_side": short_side * 8 // 5},
    }


def segmenter_architecture(side: int = 192, width: int = 128, depth: int = 4) -> dict[str, Any]:
    """Build arguments of the starter SAM, by part of segment-anything.

    `side` is the longer side of the input in pixels, a multiple of 64, `width` channels of the image encoder, a
    multiple of 32; of its `depth` blocks the last one attends to the whole image, the others within windows.
    """
    # Half of SAM's patch side: fine masks from a small input.
    patch, channels = 8, 128
    return {
        "image_encoder": {
            "img_size": side,
            "patch_size": patch,
            "embed_dim": width,
            "depth": depth,
            "num_heads": width // 32,
            "mlp_ratio": 3.0,
            "out_chans": channels,
            "qkv_bias": True,
            "use_rel_pos": False,
            "window_size": 8,
            "global_attn_indexes": [depth - 1],
        },
        "prompt_encoder": {
            "embed_dim": channels,
            "image_embedding_size": [side // patch, side // patch],
            "input_image_size": [side, side],
            "mask_in_chans": 16,
        },
        "mask_decoder": {
            "num_multimask_outputs": 3,
            "transformer": {"depth": 2, "embedding_dim": channels, "mlp_dim": 384, "num_heads": 4},
            "transformer_dim": channels,
            "iou_head_depth": 3,
            "iou_head_hidden_dim": 128,
        },
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }


def scorer_architecture(vocabulary_size: int, end_token: int, side: int = 64, width: int = 24) -> dict[str, Any]:
    """Build arguments of the starter CLIP: a small ResNet for crops, a small transformer for texts.

    `end_token` is the number of the tokenizer's [SEP], `side` that of the input in pixels, a multiple of 32, `width`
    channels of the ResNet's first stage.
    """
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": side, "layers": [1, 1, 1, 1], "width": width, "head_width": 64},
        "text_cfg": {
            "context_length": 48,
            "vocab_size": vocabulary_size,
            "hf_tokenizer_name": "tokenizer",
            "width": 128,
            "heads": 4,
            "layers": 2,
            "mlp_ratio": 2.0,
            # BERT tokenizers end a text with [SEP]; what is padded behind it does not count.
            "pool_type": "eos",
            "eos_id": end_token,
        },
        "preprocess": {
            "size": side,
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def build_tokenizer(folder: Path, pieces: int = 4000) -> None:
    """Write a BERT tokenizer folder (vocab.txt, tokenizer.json and its config) of so many pieces.

    Every word of the drawn world is one piece; single characters and their continuations make every other word
    legal; common English words, counted in Python's own language reference, and word endings keep those short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = [word for noun in CORE + EXTENDED for word in (noun.name, *noun.synonyms)]
    characters = string.ascii_lowercase + string.digits
    ordered = [*_SPECIAL, *string.punctuation, *characters, *("##" + character for character in characters)]
    ordered += [*COLOURS, *_MORE_COLOURS.split(), *_TEMPLATE_WORDS.split(), *world, *(word + "s" for word in world)]
    ordered += ["##" + ending for ending in _ENDINGS.split()]
    ordered += _common_words()
    vocabulary = list(dict.fromkeys(ordered))[:pieces]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(
        vocab={piece: number for number, piece in enumerate(vocabulary)}, do_lower_case=True, model_max_length=256
    )
    tokenizer.save_pretrained(str(folder))


def _common_words() -> list[str]:
    """English words of Python's language reference, the most frequent first, ties in alphabetical order."""
    text = " ".join(pydoc_data.topics.topics.values()).lower()
    counts = Counter(re.findall(r"(?<![\w.])[a-z]{3,12}(?![\w(])", text))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
