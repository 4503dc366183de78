#!/usr/bin/env bash
# Expected: every decoder layer of D-FINE is trained on its own classes and boxes, as the paper has it (arXiv
#   2410.13842), and the corners of a layer are held against the objects that its own boxes were matched with.
# Happens: the layer before the last gets no gradient from its classes and boxes. The decoder gives one entry more of
#   logits and boxes than of corners and reference points, since the boxes that it begins with have no corners; the
#   loss pairs entry i of the ones with entry i of the others, and what is left over at the end has no loss. So the
#   corners of each layer are paired with the boxes of the one before.
# Versions: transformers 5.24.0 and 5.23.0, torch 2.15.0, seen on 2026-12-01.
# Matters: whoever trains or fine-tunes D-FINE with transformers trains another model than the published one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" \
    transformers==5.24.0 torch==2.15.0 torchvision scipy pillow
cat >"$folder/layers.py" <<'PY'
import torch
import transformers as tf

torch.manual_seed(0)
stages = [8, 8, 16, 16]
backbone = tf.HGNetV2Config(
    stem_channels=[3, 8, 8], stage_in_channels=[8, 8, 8, 16], stage_mid_channels=[8] * 4, stage_out_channels=stages,
    hidden_sizes=stages, stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4, stage_light_block=[False] * 4,
    stage_kernel_size=[3] * 4, out_indices=[2, 3, 4],
)
config = tf.DFineConfig(
    backbone_config=backbone, encoder_in_channels=[8, 16, 16], decoder_in_channels=[32] * 3, d_model=32,
    encoder_hidden_dim=32, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4,
    decoder_attention_heads=4, decoder_layers=3, num_queries=12, num_denoising=0, num_labels=3,
    freeze_backbone_batch_norms=False,
)
model = tf.DFineForObjectDetection(config).train()
labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])}]
answer = model(pixel_values=torch.rand(1, 3, 64, 64), labels=labels)
logits, boxes, corners = (
    answer.intermediate_logits, answer.intermediate_reference_points, answer.intermediate_predicted_corners
)
logits.retain_grad()
boxes.retain_grad()
answer.loss.backward()
told = [[float(one.grad[:, place].abs().sum()) for place in range(one.shape[1])] for one in (logits, boxes)]
print("transformers", tf.__version__, "torch", torch.__version__.partition("+")[0])
print("entries of logits, boxes, corners:", logits.shape[1], boxes.shape[1], corners.shape[1])
print("gradient of logits, of boxes, entry by entry:", *([round(value, 3) for value in one] for one in told))
assert (logits.shape[1], corners.shape[1]) == (4, 3)
assert all(one[2] == 0 and min(one[0], one[1], one[3]) > 0 for one in told)
PY
"$folder/venv/bin/python" "$folder/layers.py"
echo "FINDING: transformers trains D-FINE's decoder without a class and box loss for the layer before the last"
