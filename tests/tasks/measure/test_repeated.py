"""A few images of a folder stand for many."""

from schemas.campaign import Source
from schemas.records import ImageRef
from tasks.measure.repeated import repeated
from tasks.plan.plan import list_source
from tasks.store.open import open_store


def test_images_of_a_folder_are_taken_again_in_their_order(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images" / "a", 3)
    source = {"uri": str(tmp_path / "images"), "include": ["a/*.png"], "max_pixels": 1000}
    campaign = make_campaign(source=source)
    refs = list(list_source(campaign.source, open_store(campaign.source)))
    many, links = repeated(campaign, refs, 7, tmp_path / "many")
    assert len(links) == 7
    store, original = open_store(many.source), open_store(campaign.source)
    for number, link in enumerate(links):
        assert store.get(link.key).data == original.get(refs[number % 3].key).data
    assert many.source.max_pixels == 1000
    assert many.classes == campaign.classes


def test_enough_images_and_those_of_a_bucket_stay_as_they_are(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 3)
    campaign = make_campaign()
    refs = list(list_source(campaign.source, open_store(campaign.source)))
    assert repeated(campaign, refs, 3, tmp_path / "many") == (campaign, refs)
    in_bucket = campaign.model_copy(update={"source": Source(uri="s3://bucket/images")})
    few = [ImageRef("a.png", "", 1)]
    assert repeated(in_bucket, few, 3, tmp_path / "many") == (in_bucket, few)
    assert not (tmp_path / "many").exists()
