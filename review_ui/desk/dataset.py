"""Makes the FiftyOne dataset of a desk: its fields, what may be edited, and its colours."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import fiftyone as fo

QUESTION: Final = "question"
"""The label asked about and every new one; the only field that can be edited."""
KNOWN: Final = "known"
"""The other labels of the image, to be seen."""
_TEXTS: Final = ("item", "kind", "ask", "why")
_QUESTION_COLOUR: Final = "#ff9500"
_KNOWN_COLOUR: Final = "#8a93a3"
_MASK_OPACITY: Final = 0.4


def open_dataset(name: str, classes: Sequence[str]) -> "fo.Dataset":
    """Open a desk's dataset, or make it; brings it up to date with the campaign's classes.

    Args:
        name: See review_ui.desk_name.
        classes: Of the campaign, in its order.

    Returns:
        The dataset, which outlives this process.
    """
    import fiftyone as fo

    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
    else:
        dataset = fo.Dataset(name, persistent=True)
        _make_fields(dataset)
        _make_looks(dataset)
    if dataset.label_schemas.get(QUESTION, {}).get("classes") != list(classes):
        _make_schemas(dataset, classes)
    return dataset


def _make_fields(dataset: "fo.Dataset") -> None:
    import fiftyone as fo

    for name in _TEXTS:
        dataset.add_sample_field(name, fo.StringField)
    dataset.add_sample_field("epoch", fo.IntField)
    for name in (QUESTION, KNOWN):
        dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    # A reviewer's submit finds its sample by it.
    dataset.create_index("item", unique=True)


def _make_looks(dataset: "fo.Dataset") -> None:
    import fiftyone as fo

    colours = [
        {"path": QUESTION, "fieldColor": _QUESTION_COLOUR, "colorByAttribute": None},
        {"path": KNOWN, "fieldColor": _KNOWN_COLOUR, "colorByAttribute": None},
    ]
    dataset.app_config.color_scheme = fo.ColorScheme(
        color_by="field", color_pool=[_QUESTION_COLOUR, _KNOWN_COLOUR], opacity=_MASK_OPACITY, fields=colours
    )
    dataset.app_config.sidebar_groups = [
        fo.SidebarGroupDocument(name="question", paths=["ask", "why", QUESTION, KNOWN], expanded=True),
        fo.SidebarGroupDocument(
            name="other",
            paths=["item", "kind", "epoch", "id", "filepath", "created_at", "last_modified_at"],
            expanded=False,
        ),
        fo.SidebarGroupDocument(name="tags", paths=[], expanded=False),
        fo.SidebarGroupDocument(name="metadata", paths=[], expanded=False),
    ]
    dataset.save()


def _make_schemas(dataset: "fo.Dataset", classes: Sequence[str]) -> None:
    schema = {"type": "detections", "component": "dropdown", "classes": list(classes), "attributes": []}
    dataset.update_label_schema(QUESTION, schema)
    # What is no part of an active schema is not drawn while people annotate.
    dataset.update_label_schema(KNOWN, schema | {"read_only": True})
    dataset.activate_label_schemas([QUESTION, KNOWN])
