"""Processes one shard: from keys to tables, with a marker written last."""
