"""The prompt templates that texts are set into before they are embedded."""

from typing import Final

from schemas.errors import UserError

_PLAIN: Final = ("{}",)

_PHOTO: Final = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a cropped photo of a {}.",
    "a picture of a {}.",
    "one {}.",
)

# The 80 templates of Radford et al. 2021, section 3.1.4, as listed in the authors' notebook
# Prompt_Engineering_for_ImageNet.ipynb (repository openai/CLIP).
_IMAGENET: Final = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

_PRESETS: Final = {"plain": _PLAIN, "photo": _PHOTO, "imagenet": _IMAGENET}


def templates_of(choice: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the templates that a preset or a user's own list stands for.

    Args:
        choice: plain, photo or imagenet, or templates with one {} each.

    Raises:
        UserError: No such preset, an empty list, or a template without exactly one {}.
    """
    if isinstance(choice, str):
        if choice not in _PRESETS:
            raise UserError(f"models.scorer.templates: unknown preset {choice!r}; use one of {', '.join(_PRESETS)}")
        return _PRESETS[choice]
    if not choice:
        raise UserError("models.scorer.templates: the list is empty; use plain, or give at least one template")
    for template in choice:
        if template.count("{}") != 1:
            raise UserError(f"models.scorer.templates: {template!r} must have exactly one {{}}, where the text goes")
    return tuple(choice)


def fill(template: str, text: str) -> str:
    """Set a text into a template; braces in the text mean nothing."""
    return template.replace("{}", text)
