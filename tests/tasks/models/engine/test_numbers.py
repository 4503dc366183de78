"""What of the engine a fingerprint knows."""

from tasks.models.engine.numbers import numbers_of
from tasks.models.engine.switches import REFERENCE, Engine


def test_in_fp32_no_switch_matters():
    assert numbers_of("fp32", Engine(), ["fused_relpos"]) == numbers_of("fp32", REFERENCE, ["fused_relpos"]) == "fp32"


def test_in_bf16_those_that_are_on_do():
    only = Engine(frozenset(["channels_last"]))
    assert numbers_of("bf16", only, ["fused_relpos", "channels_last"]) == "bf16+channels_last"
    assert numbers_of("bf16", REFERENCE, ["fused_relpos", "channels_last"]) == "bf16"
