"""Vouch from Python: `import vouch_labels as vouch`, then `vouch.Campaign("campaign.yaml")`; see `vouch_labels.api`.

The import takes no time; what is heavy is imported by the call that needs it. `vouch_labels.flows`,
`vouch_labels.tasks` and so on are the folders of the checkout.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vouch_labels.api import Campaign, NotCertifiedError, UserError, VouchError, demo_campaign

__all__ = ["Campaign", "NotCertifiedError", "UserError", "VouchError", "demo_campaign"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import vouch_labels.api

    return getattr(vouch_labels.api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
