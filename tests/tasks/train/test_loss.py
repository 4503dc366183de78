from typing import Any

import pytest
import torch

from vouch_labels.schemas.training import TrainSettings
from vouch_labels.tasks.train.loss import inside_ignored
from vouch_labels.tasks.train.model import build

CLASSES: dict[str, tuple[str, ...]] = {"cat": ("cat",), "dog": ("dog",)}
NOWHERE = torch.zeros(0, 4)


def small(kind: str) -> Any:
    """A model in training, with labels of two images."""
    torch.manual_seed(2)
    if kind == "d_fine":
        return build(TrainSettings(size="tiny", image_size=96), CLASSES).model.train()
    import transformers as tf

    backbone = tf.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[2] * 4, layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = tf.RTDetrV2Config(
        backbone_config=backbone, d_model=32, encoder_hidden_dim=32, encoder_in_channels=[16, 16, 32],
        decoder_in_channels=[32] * 3, encoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, num_queries=12, num_denoising=8, num_labels=2,
        freeze_backbone_batch_norms=False,
    )  # fmt: skip
    model = tf.RTDetrV2ForObjectDetection(config).train()
    from vouch_labels.tasks.train.loss import loss_of

    model.loss_function = loss_of(config)
    return model


def targets(ignored: torch.Tensor = NOWHERE) -> list[dict[str, torch.Tensor]]:
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.3, 0.2]])
    return [
        {"class_labels": torch.tensor([0, 1]), "boxes": boxes, "ignored": ignored},
        {"class_labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4), "ignored": ignored},
    ]


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def loss_and_gradients(model: Any, labels: list[dict[str, torch.Tensor]]) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(5)  # denoising queries are drawn
    model.zero_grad()
    loss = model(pixel_values=pictures(), labels=labels).loss
    loss.backward()
    return loss.item(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def test_without_ignored_regions_it_is_the_packages_own_loss() -> None:
    model = small("rt_detr_v2")
    ours, gradients = loss_and_gradients(model, targets())
    del model._loss_function  # back to that of transformers
    theirs, wanted = loss_and_gradients(model, targets())
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert gradients.keys() == wanted.keys()
    for name, value in gradients.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)


def test_layers_of_d_fine_belong_together() -> None:
    model = small("d_fine")
    torch.manual_seed(5)
    ours = model(pixel_values=pictures(), labels=targets()).loss_dict
    del model._loss_function
    torch.manual_seed(5)
    theirs = model(pixel_values=pictures(), labels=targets()).loss_dict
    # Of the last layer, and of the boxes that the decoder begins with, both have the same.
    for name in ("loss_vfl", "loss_bbox", "loss_giou", "loss_vfl_aux_0", "loss_bbox_aux_0", "loss_giou_aux_0"):
        assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5)
    # Two decoder layers: the beginning, the first layer, the encoder; corners where there are any.
    assert {name for name in ours if "vfl_aux" in name} == {f"loss_vfl_aux_{place}" for place in range(3)}
    assert [name for name in ours if "fgl_aux" in name] == ["loss_fgl_aux_1"]
    assert {name for name in ours if "vfl_dn" in name} == {f"loss_vfl_dn_{place}" for place in range(3)}
    assert [name for name in ours if "fgl_dn" in name] == ["loss_fgl_dn_1", "loss_fgl_dn_2"]


@pytest.mark.parametrize("kind", ["d_fine", "rt_detr_v2"])
def test_ignored_queries_get_no_gradient_and_others_the_same(kind: str) -> None:
    model = small(kind)
    region = torch.tensor([[0.0, 0.0, 0.55, 1.0]])
    # The logits of every layer as leaves: what the loss gives back to them is all that a query is told.
    seen: dict[str, torch.Tensor] = {}
    loss_function = model.loss_function

    def keep(
        logits: torch.Tensor, labels: Any, device: Any, boxes: torch.Tensor, config: Any, *layers: Any, **more: Any
    ) -> Any:
        layers[0].retain_grad()
        more["enc_topk_logits"].retain_grad()
        seen.update(
            logits=layers[0], boxes=layers[1], encoder=more["enc_topk_logits"], meta=more["denoising_meta_values"]
        )
        return loss_function(layers[0][:, -1], labels, device, boxes, config, *layers, **more)

    model.loss_function = keep
    loss_and_gradients(model, targets())
    plain = seen["logits"].grad.clone()
    loss_and_gradients(model, targets(region))
    masked = seen["logits"].grad
    inside = torch.stack(
        [inside_ignored(seen["boxes"][:, layer], targets(region)) for layer in range(seen["boxes"].shape[1])], 1
    )
    told = masked.abs().sum(3) > 0
    assert (inside & ~told).sum() >= 10
    # The second image has no object, so nothing in it is matched: no query in its region is told anything.
    assert inside[1].any()
    assert not told[1][inside[1]].any()
    assert told[1][~inside[1]].all()
    torch.testing.assert_close(masked[~inside], plain[~inside])
    # In the first image at most as many are told something as objects can be matched with (denoising groups included).
    assert (plain.abs().sum(3) > 0)[0].all()
    assert seen["encoder"].grad.abs().sum(2).eq(0).any()


def test_which_boxes_are_inside() -> None:
    boxes = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.4, 0.2, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0], [0.9, 0.9, 0.0, 0.0]]])
    regions = torch.tensor([[0.0, 0.0, 0.4, 0.4]])
    assert inside_ignored(boxes, [{"ignored": regions}]).tolist() == [[True, True, False, False]]
    moved = boxes + torch.tensor([0.01, 0, 0, 0])
    assert inside_ignored(moved, [{"ignored": regions}]).tolist() == [[True, False, False, False]]
    assert not inside_ignored(boxes, [{"ignored": NOWHERE}]).any()
