"""A few images as many, for machines that are through with a few before all their parts are at work."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from schemas.campaign import Campaign, Source
from schemas.records import ImageRef
from tasks.plan.plan import list_source
from tasks.store.open import open_store


def repeated(
    campaign: Campaign, refs: Sequence[ImageRef], count: int, folder: Path
) -> tuple[Campaign, Sequence[ImageRef]]:
    """Give a campaign whose source has the images again and again.

    Args:
        campaign: With absolute paths.
        refs: Images of its source.
        count: How many are wanted.
        folder: Gets links to the images; fresh.

    Returns:
        The campaign and its images: as they are where there are enough, or where they lie in no folder.
    """
    store = open_store(campaign.source)
    files = [store.local_path(ref.key) for ref in refs]
    if len(refs) >= count or None in files:
        return campaign, refs
    for number, file in zip(range(count), cycle(filter(None, files)), strict=False):
        # No two of one round are neighbours of their copies, as in a listing of many images.
        link = folder / f"{number:06d}{file.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    limits = campaign.source.model_dump(include={"max_image_mb", "max_pixels"})
    source = Source(uri=str(folder), include=("**",), **limits)
    many = campaign.model_copy(update={"source": source})
    return many, list(list_source(source, open_store(source)))
