"""Which speed-ups a campaign gets."""

import pytest
from pydantic import ValidationError

from schemas.campaign import SWITCHES, ModelsConfig
from tasks.models.engine.switches import COMPILE_AFTER, REFERENCE, Engine, choose_engine
from tasks.models.runtime import choose_runtime


def test_all_is_on_by_default_and_a_cpu_does_not_compile():
    assert choose_engine(ModelsConfig(), "cpu") == Engine()
    assert all(Engine().has(name) for name in SWITCHES)


def test_reference_has_nothing_on_whatever_else_is_asked():
    assert choose_engine(ModelsConfig(engine="reference", compile="on"), "cuda:0") == REFERENCE
    assert not any(REFERENCE.has(name) for name in SWITCHES)


def test_one_switch_alone_goes_off():
    engine = choose_engine(ModelsConfig(switched_off=("folded_fusion",)), "cpu")
    assert [name for name in SWITCHES if not engine.has(name)] == ["folded_fusion"]


@pytest.mark.parametrize(
    ("asked", "device", "compiles", "after"),
    [
        ("auto", "cuda:0", True, COMPILE_AFTER),
        ("auto", "cpu", False, 0),
        ("auto", "mps", False, 0),
        ("on", "cpu", True, 0),
        ("off", "cuda:0", False, 0),
    ],
)
def test_compile(asked, device, compiles, after):
    engine = choose_engine(ModelsConfig(compile=asked), device)
    assert (engine.compile, engine.compile_after) == (compiles, after)


def test_yaml_reads_on_and_off_as_truth_values():
    assert ModelsConfig.model_validate({"compile": False}).compile == "off"
    assert ModelsConfig.model_validate({"compile": True}).compile == "on"


def test_an_unknown_switch_names_the_nearest():
    with pytest.raises(ValidationError, match="'folded_fuson' is no switch; did you mean folded_fusion"):
        ModelsConfig(switched_off=("folded_fuson",))
    with pytest.raises(ValueError, match="'zzz' is no switch; use some of static_shapes, "):
        Engine().has("zzz")


def test_the_runtime_carries_the_engine():
    runtime = choose_runtime(ModelsConfig(device="cpu", switched_off=("overlap",)))
    assert not runtime.engine.has("overlap")


def test_every_switch_switches_something():
    from pathlib import Path

    sources = [path.read_text() for path in (Path(__file__).parents[4] / "tasks").rglob("*.py")]
    assert [name for name in SWITCHES if not any(f'"{name}"' in source for source in sources)] == []
