"""Computes the loss of RT-DETR and D-FINE such that nothing is learned where it is not known what there is.

A query is not told that it is background where its box lies mostly inside a region of an undecided label. Matching,
terms and weights are transformers' own. Unlike transformers' function for D-FINE (5.23), which pairs corners of each
decoder layer with the boxes of the one before and leaves the last but one without a loss of its own, corners and boxes
of one layer belong together here, as in the paper (Y. Peng et al., 2024, arXiv 2410.13842).
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

LEAST_INSIDE: Final = 0.5
"""Share of a query's box that an undecided region covers, from which on the query is ignored."""
_NEVER: Final = -1e4
"""A logit so low that neither its loss nor its gradient is more than 0 where the class is said to be absent."""


def loss_of(config: Any) -> Callable[..., tuple[Tensor, dict[str, Tensor], None]]:  # noqa: ANN401 - a config of transformers
    """Make what `loss_function` of such a model may be set to.

    Its labels are those of transformers (`class_labels` (N,), `boxes` (N, 4) cxcywh in [0, 1]) with `ignored` (M, 4)
    beside them, xyxy in [0, 1]. Without ignored regions the loss of RT-DETR is transformers' own.
    """
    from transformers.loss.loss_d_fine import DFineLoss
    from transformers.loss.loss_rt_detr import RTDetrLoss

    base: Any = DFineLoss if config.model_type == "d_fine" else RTDetrLoss

    class Loss(base):  # type: ignore[misc] # of a package without types
        """The package's loss, blind to what queries in undecided regions say."""

        def get_loss(
            self,
            loss: str,
            outputs: dict[str, Tensor],
            targets: list[dict[str, Tensor]],
            indices: list[tuple[Tensor, Tensor]],
            num_boxes: float,
        ) -> dict[str, Tensor]:
            """Compute one term for the queries of one layer."""
            unknown = inside_ignored(outputs["pred_boxes"].detach(), targets)
            unknown[self._get_source_permutation_idx(indices)] = False
            hidden = {
                name: outputs[name].masked_fill(unknown[..., None], _NEVER)
                for name in ("logits", "teacher_logits")
                if name in outputs
            }
            found: dict[str, Tensor] = super().get_loss(loss, outputs | hidden, targets, indices, num_boxes)
            return found

    criterion = Loss(config)

    def loss(
        logits: Tensor,
        labels: list[dict[str, Tensor]],
        device: torch.device,
        pred_boxes: Tensor,
        config: Any,  # noqa: ANN401, ARG001 - as transformers calls it
        outputs_class: Tensor,
        outputs_coord: Tensor,
        *,
        enc_topk_logits: Tensor,
        enc_topk_bboxes: Tensor,
        denoising_meta_values: dict[str, Any] | None = None,
        predicted_corners: Tensor | None = None,
        initial_reference_points: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        criterion.to(device)
        by_layer = {"logits": outputs_class, "pred_boxes": outputs_coord.clamp(0, 1)}
        if predicted_corners is not None and initial_reference_points is not None:
            by_layer |= {"pred_corners": predicted_corners, "ref_points": initial_reference_points}
        last = {"logits": logits, "pred_boxes": pred_boxes.clamp(0, 1)}
        noise: dict[str, Any] = {}
        if denoising_meta_values is not None:
            split = denoising_meta_values["dn_num_split"]
            noised = {name: torch.split(value, split, dim=2)[0] for name, value in by_layer.items()}
            by_layer = {name: torch.split(value, split, dim=2)[1] for name, value in by_layer.items()}
            last = {name: torch.split(value, split, dim=1)[1] for name, value in last.items()}
            noise = {"dn_auxiliary_outputs": _layers(noised), "denoising_meta_values": denoising_meta_values}
        encoder = {"logits": enc_topk_logits, "pred_boxes": enc_topk_bboxes.clamp(0, 1)}
        outputs = last | {"auxiliary_outputs": [*_layers(by_layer)[:-1], encoder]} | noise
        terms: dict[str, Tensor] = criterion(outputs, labels)
        return sum(terms.values(), logits.new_zeros(())), terms, None

    return loss


def _layers(outputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Outputs (B, L, Q, ...) layer by layer, first the boxes that D-FINE's decoder begins with, which have no corners.

    Corners learn from those of the last layer.
    """
    both = zip(outputs["logits"].unbind(1), outputs["pred_boxes"].unbind(1), strict=True)
    layers = [{"logits": logits, "pred_boxes": boxes} for logits, boxes in both]
    if "pred_corners" in outputs:
        corners, points = outputs["pred_corners"].unbind(1), outputs["ref_points"].unbind(1)
        teacher = {"teacher_corners": corners[-1], "teacher_logits": layers[-1]["logits"]}
        for layer, of_layer, at in zip(layers[-len(corners) :], corners, points, strict=True):
            layer.update(teacher, pred_corners=of_layer, ref_points=at)
    return layers


def inside_ignored(boxes: Tensor, targets: list[dict[str, Tensor]]) -> Tensor:
    """Tell which boxes lie mostly inside one of their image's ignored regions.

    Args:
        boxes: (B, Q, 4) cxcywh in [0, 1].
        targets: B, each with `ignored` (M, 4), xyxy in [0, 1].

    Returns:
        (B, Q) bool.
    """
    corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=2)
    areas = (boxes[..., 2] * boxes[..., 3]).clamp(min=1e-12)
    found = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for place, target in enumerate(targets):
        regions = target["ignored"]
        if len(regions):
            sides = torch.minimum(corners[place, :, None, 2:], regions[:, 2:]) - torch.maximum(
                corners[place, :, None, :2], regions[:, :2]
            )
            covered = sides.clamp(min=0).prod(dim=2) / areas[place, :, None]
            found[place] = (covered >= LEAST_INSIDE).any(dim=1)
    return found
