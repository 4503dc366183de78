import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.models.groundingdino import build
from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture


@pytest.fixture
def described(tiny_groundingdino: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny_groundingdino))
    return path


def test_builds_and_looks(described: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_groundingdino(read_architecture(described).model_dump(), tiny_tokenizer)
    assert not model.training
    with torch.no_grad():
        answer = model(torch.rand(1, 3, 64, 96), captions=["red dog . cat ."])
    assert answer["pred_logits"].shape == (1, 20, 256)
    assert answer["pred_boxes"].shape == (1, 20, 4)
    with torch.no_grad():  # the package prints when numbers are infinite
        model(torch.full((1, 3, 64, 96), torch.inf), captions=["red dog . cat ."])
    assert capsys.readouterr().out == ""


def test_package_is_left_as_it_was(described: Path, tiny_tokenizer: Path) -> None:
    from groundingdino.models.GroundingDINO import groundingdino as package
    from groundingdino.models.GroundingDINO.backbone import backbone

    before = (package.BertModelWarper, package.get_tokenlizer.get_tokenlizer, backbone.build_swin_transformer)
    architecture = read_architecture(described).model_dump()
    models: list[torch.nn.Module] = []
    threads = [
        threading.Thread(target=lambda: models.append(build_groundingdino(architecture, tiny_tokenizer)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 4
    assert (package.BertModelWarper, package.get_tokenlizer.get_tokenlizer, backbone.build_swin_transformer) == before


def test_text_mask_keeps_phrases_apart(described: Path, tiny_tokenizer: Path) -> None:
    model = build_groundingdino(read_architecture(described).model_dump(), tiny_tokenizer)
    ids = torch.tensor([[2, 50, 18, 51, 18, 3]])
    other = torch.tensor([[2, 50, 18, 99, 18, 3]])
    mask = torch.eye(6, dtype=torch.bool)
    mask[1:3, 1:3] = mask[3:5, 3:5] = True
    places = torch.tensor([[0, 0, 1, 0, 1, 0]])
    with torch.no_grad():
        one = model.bert(input_ids=ids, attention_mask=mask[None], position_ids=places)["last_hidden_state"]
        two = model.bert(input_ids=other, attention_mask=mask[None], position_ids=places)["last_hidden_state"]
        wide = model.bert(input_ids=other, attention_mask=torch.ones(1, 6), position_ids=places)["last_hidden_state"]
    assert torch.allclose(one[:, :3], two[:, :3], atol=1e-6)
    assert not torch.allclose(one[:, 3:5], two[:, 3:5], atol=1e-3)
    assert not torch.allclose(two[:, :3], wide[:, :3], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groundingdino": {}}, "cannot be built"),
        ({"groundingdino": {"modelname": "groundingdino"}}, "cannot be built"),
        ({"bert": {"no_such_size": 3, "hidden_size": 31, "num_attention_heads": 4}}, "cannot be built"),
    ],
)
def test_impossible_architectures(described: Path, tiny_tokenizer: Path, change: dict[str, Any], message: str) -> None:
    architecture = {**read_architecture(described).model_dump(), **change}
    with pytest.raises(CheckpointError, match=message) as raised:
        build_groundingdino(architecture, tiny_tokenizer)
    assert "\n" not in str(raised.value)


def test_published_architectures_come_from_the_package() -> None:
    small, base = read_architecture("swin_t"), read_architecture("swin_b")
    assert small.groundingdino["backbone"] == "swin_T_224_1k"
    assert base.groundingdino["backbone"] == "swin_B_384_22k"
    assert (small.resize.short_side, small.resize.long_side) == (800, 1333)
    assert small.swin is None


def test_json_fields_that_are_absent_are_those_of_swin_t(described: Path) -> None:
    architecture = read_architecture(described)
    assert architecture.groundingdino["num_queries"] == 20
    assert architecture.groundingdino["two_stage_type"] == "standard"
    assert architecture.swin is not None
    assert architecture.swin.depths == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "the file: Input should be a valid dictionary"),
        ('{"swim": {}}', "swim: Extra inputs are not permitted"),
        ('{"swin": {"embed_dim": 0}}', r"swin\.embed_dim"),
        ('{"groundingdino": {"num_querys": 3}}', r"groundingdino\.num_querys is no field"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message) as raised:
        read_architecture(path)
    assert "\n" not in str(raised.value)


def test_no_or_unknown_architecture(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say its own; set swin_t, swin_b or a JSON file"):
        read_architecture(None)
    with pytest.raises(CheckpointError, match="'swin_x' is unknown"):
        read_architecture("swin_x")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_architecture(tmp_path / "gone.json")


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    described: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = read_architecture(described).model_dump()
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    for attempt in (lambda: build_groundingdino(architecture, tiny_tokenizer), lambda: read_architecture("swin_t")):
        with pytest.raises(UserError, match=r"pip install --no-deps groundingdino-py==0\.4\.0"):
            attempt()
