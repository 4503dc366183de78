"""Arrow schemas of every table that is written, one row order for all tables of a shard."""

from typing import Final

import pyarrow as pa

BOX: Final = ("x0", "y0", "x1", "y1")
"""Columns of a box wherever a table has one: xyxy, pixels of the EXIF-oriented original, right and bottom exclusive."""

PLAN = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)
"""plan/<shard>.parquet: the images of a shard, sorted by key."""

SHARDS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("first_key", pa.string(), nullable=False),
    ]
)
"""plan/<generation>-<id>-shards.parquet: the shards of a large generation, sorted by first key."""

REMOVED = pa.schema([pa.field("key", pa.string(), nullable=False)])
"""plan/<generation>-<id>-removed.parquet: keys that have left the source, sorted."""

IMAGES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),  # of the file's bytes; null when it could not be fetched
        pa.field("width", pa.int32()),  # pixels, after EXIF orientation
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),  # JPEG, PNG, ...
        pa.field("mode", pa.string()),  # mode of the file, before conversion to RGB
        pa.field("orientation", pa.int8()),  # EXIF orientation 1..8 that was applied
        pa.field("outcome", pa.string(), nullable=False),  # done | failed | skipped: a file that is no image
        pa.field("step", pa.string()),  # step that failed
        pa.field("reason", pa.string()),  # why it failed; of one skipped its kind
        pa.field("labels", pa.int32(), nullable=False),
    ]
)
"""One row an image of the shard, in plan order: width and height are those of the EXIF-oriented original."""

FOUND = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("x0", pa.float32(), nullable=False),  # xyxy, pixels of the EXIF-oriented original
        pa.field("y0", pa.float32(), nullable=False),
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),  # of each text that was asked for, in their order
    ]
)
"""One row a candidate box of the detector, before classes are decided; a table for each set of texts asked together."""

IMPORTED = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("class_name", pa.string()),  # as labels carry it; null: the image is named, and this row is no label
        pa.field("x0", pa.float32()),  # xyxy, pixels of the EXIF-oriented original
        pa.field("y0", pa.float32()),
        pa.field("x1", pa.float32()),
        pa.field("y1", pa.float32()),
        pa.field("score", pa.float32()),  # [0, 1]; null where the file has none
        pa.field("name", pa.string(), nullable=False),  # "annotation 17"; empty where it is no label
    ]
)
"""imports/<run>/<hash>.parquet: labels that were made elsewhere, sorted by key."""

DETECTIONS = pa.schema(
    [
        pa.field("label_id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("x0", pa.float32(), nullable=False),  # xyxy, pixels of the EXIF-oriented original
        pa.field("y0", pa.float32(), nullable=False),
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),  # text with the best score
        pa.field("detector_score", pa.float32(), nullable=False),
        pa.field("detector_margin", pa.float32(), nullable=False),  # score - score of the second text's class
        pa.field("runner_up", pa.string()),  # second class or negative text; null with one class
        pa.field("relative_area", pa.float32(), nullable=False),  # of the image, [0, 1]
        pa.field("border_sides", pa.int8(), nullable=False),  # image borders that it touches, 0..4
        pa.field("crowding", pa.float32(), nullable=False),  # largest IoU with another label, [0, 1]
    ]
)
"""One row a label, images in plan order, best score first."""

MASKS = pa.schema(
    [
        pa.field("label_id", pa.string(), nullable=False),
        pa.field("rle_counts", pa.binary(), nullable=False),  # compressed COCO RLE; size is the image's
        pa.field("mask_area", pa.int64(), nullable=False),  # pixels
        pa.field("mask_x0", pa.float32(), nullable=False),
        pa.field("mask_y0", pa.float32(), nullable=False),
        pa.field("mask_x1", pa.float32(), nullable=False),
        pa.field("mask_y1", pa.float32(), nullable=False),
        pa.field("sam_iou", pa.float32(), nullable=False),  # predicted, clipped to [0, 1]
        pa.field("mask_stability", pa.float32(), nullable=False),
        pa.field("mask_box_iou", pa.float32(), nullable=False),
    ]
)
"""Row for row as DETECTIONS."""

SCORES = pa.schema(
    [
        pa.field("label_id", pa.string(), nullable=False),
        pa.field("clip_similarity", pa.float32(), nullable=False),  # cosine with the class, tight crop
        pa.field("clip_probability", pa.float32(), nullable=False),
        pa.field("clip_margin", pa.float32(), nullable=False),  # less the best other text
        pa.field("clip_other", pa.string()),  # best other text
        pa.field("clip_other_probability", pa.float32()),
        pa.field("clip_similarity_wide", pa.float32(), nullable=False),  # the same on the wide crop
        pa.field("clip_probability_wide", pa.float32(), nullable=False),
        pa.field("clip_margin_wide", pa.float32(), nullable=False),
    ]
)
"""Row for row as DETECTIONS."""

PRESENCE = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("clip_presence", pa.float32(), nullable=False),  # probability of the class, greatest of all views
    ]
)
"""Classes that CLIP sees in an image of which the image has no label: images in plan order, classes in theirs."""

DECISIONS = pa.schema(
    [
        pa.field("label_id", pa.string(), nullable=False),
        pa.field("p_correct", pa.float32()),  # calibrated; null before a calibrator is certified
        pa.field("decision", pa.string(), nullable=False),  # accept | review
        pa.field("reason", pa.string(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),  # its version
    ]
)
"""Row for row as DETECTIONS."""

NOT_SIGNALS: Final = ("mask_area", *BOX, *(f"mask_{side}" for side in BOX))
"""Numbers of DETECTIONS and MASKS that say nothing of whether a label is right, or little."""

NUMBERS = pa.schema(
    [
        pa.field("number", pa.uint64(), nullable=False),  # stands for the label's id
        pa.field("class_name", pa.dictionary(pa.int16(), pa.string()), nullable=False),
        pa.field("image", pa.int32(), nullable=False),  # place among the shard's images that are done
        *(
            pa.field(field.name, pa.float32(), nullable=False)  # NaN where missing
            for table in (DETECTIONS, MASKS, SCORES)
            for field in table
            if (pa.types.is_floating(field.type) or pa.types.is_integer(field.type)) and field.name not in NOT_SIGNALS
        ),
    ]
)
"""Row for row as DETECTIONS: what it takes to sample, calibrate and route labels, in one file that is read at once."""

STAGES = {
    "images": IMAGES,
    "detect": DETECTIONS,
    "segment": MASKS,
    "score": SCORES,
    "presence": PRESENCE,
    "route": DECISIONS,
}
"""Stage name -> schema of the table that it writes for every shard."""
