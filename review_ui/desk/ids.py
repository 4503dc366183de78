"""Ids of labels on a desk: FiftyOne wants its own kind, and a label must be known again by it."""

import hashlib

from bson import ObjectId


def object_id(label_id: str) -> ObjectId:
    """The id that a label has on a desk: its own where that is one, else one made of it."""
    if ObjectId.is_valid(label_id):
        return ObjectId(label_id)
    return ObjectId(hashlib.sha256(label_id.encode()).hexdigest()[:24])
