"""Incremental planning: what is new, changed or gone in the source, cut into shards."""
