"""Vouch as it is imported: `vouch_labels.flows`, `vouch_labels.tasks` and so on are the folders of the checkout."""
