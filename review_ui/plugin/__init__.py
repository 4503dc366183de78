"""The FiftyOne plugin @vouch/review: operators, the panel, and index.umd.js: the keys, built from review_ui/browser."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiftyone.plugins.context import PluginContext


def register(plugin: "PluginContext") -> None:
    """Tell FiftyOne what there is."""
    # FiftyOne runs this file under a name of its own; what the operators share is imported once, by ours.
    from vouch_labels.review_ui.plugin.operators import OPERATORS
    from vouch_labels.review_ui.plugin.panel import ReviewQueue

    for one in (*OPERATORS, ReviewQueue):
        plugin.register(one)
