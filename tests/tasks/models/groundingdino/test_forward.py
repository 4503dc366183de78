import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vouch_labels.tasks.models.groundingdino.build import Resize
from vouch_labels.tasks.models.groundingdino.forward import least_shape, normalise, resize_image, resized_shape


def test_pixels_are_the_package_s_own() -> None:
    import groundingdino.datasets.transforms as package

    transform = package.Compose(
        [
            package.RandomResize([80], max_size=133),
            package.ToTensor(),
            package.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    generator = np.random.default_rng(0)
    for height, width in [(50, 60), (301, 97), (80, 80), (40, 300), (80, 100), (133, 20), (77, 77)]:
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected, _ = transform(Image.fromarray(image), None)
        shape = resized_shape(height, width, Resize(short_side=80, long_side=133))
        ours = normalise(torch.tensor(resize_image(image, shape))[None], shape)[0]
        assert torch.equal(ours, expected), (height, width)


@settings(deadline=None)
@given(height=st.integers(1, 30_000), width=st.integers(1, 30_000))
def test_shapes_keep_their_limits(height: int, width: int) -> None:
    resize = Resize()
    new = resized_shape(height, width, resize)
    assert min(new) >= 1
    assert min(new) <= 800
    assert max(new) <= 1333 * (1 + 0.5 / max(min(new) - 0.5, 0.5))  # half a pixel of the short side
    assert resized_shape(width, height, resize) == new[::-1]
    least = least_shape(new, 900)
    assert least[0] >= new[0]
    assert least[1] >= new[1]
    assert sum((least[0] // stride) * (least[1] // stride) for stride in (8, 16, 32)) >= 900


def test_growth_has_the_mean_colour() -> None:
    grown = normalise(torch.full((1, 4, 6, 3), 255, dtype=torch.uint8), (8, 6))
    assert grown.shape == (1, 3, 8, 6)
    assert (grown[:, :, 4:] == 0).all()
    assert (grown[:, :, :4] > 2).all()


def test_usual_images_are_not_grown() -> None:
    assert least_shape((800, 1333), 900) == (800, 1333)
    assert least_shape((192, 192), 30) == (192, 192)
