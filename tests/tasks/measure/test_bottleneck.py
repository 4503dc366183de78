"""What is slow is named, with what would help."""

import pytest

from tasks.measure.bottleneck import bottleneck
from tasks.measure.steps import STEPS


def said(gpu_busy=None, fetching=1.0, decoding=2.0, taken=0.1, **shares):
    rest = (1 - sum(shares.values())) / (len(STEPS) - len(shares))
    every = {step: shares.get(step, rest) for step in STEPS}
    return bottleneck(
        every, fetching_ms=fetching, decoding_ms=decoding, gpu_busy=gpu_busy, fetch_threads=8, taken_cores=taken
    )


@pytest.mark.parametrize(
    ("words", "measured"),
    [
        ("detector: 71% of the time; a GPU would help most", {"detect": 0.71}),
        ("segmenter: 60% of the time, and the GPU computes 95% of it all; a sm", {"segment": 0.6, "gpu_busy": 0.95}),
        ("scorer: 60% of the time, and the GPU computes only 30%", {"score": 0.6, "gpu_busy": 0.3}),
        ("decode: 20% of the time is waiting for images to be decoded; add CPU work", {"acquire": 0.2, "detect": 0.7}),
        ("fetch: 20% of the time is waiting for images from the source; raise run.f", {"acquire": 0.2, "fetching": 9}),
        ("write: 60% of the time; the workspace is slow", {"write": 0.6}),
        ("tables: 60% of the time, beside the models; faster CPU", {"tables": 0.6}),
        ("other programs: they wanted 4.0 times the cores", {"detect": 0.71, "taken": 4.0}),
    ],
)
def test_the_words(words, measured):
    assert said(**measured).startswith(words)
