"""Keeps the numbers of a shard's labels in one file, so that commands over all labels read that and little else.

It holds nothing that the shard's tables do not: where it is missing, it is made of them.
"""

import hashlib
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.errors import ObjectMissingError, StoreError
from vouch_labels.schemas.records import Part
from vouch_labels.schemas.tables import NUMBERS
from vouch_labels.tasks.arrow import flat, numbers
from vouch_labels.tasks.policy import label_numbers
from vouch_labels.tasks.shard.files import part_key
from vouch_labels.tasks.store.store import Store

SIGNALS: Final = tuple(NUMBERS.names[3:])
"""What a calibrator may look at, in column order; pixels of a mask say little but how large the image is."""
_OF_LABELS: Final = ("detect", "segment", "score")


def numbers_of(images: pa.Table, *labels: pa.Table) -> pa.Table:
    """Make the table of NUMBERS from images that are done, in order, and the columns of their labels in some tables."""
    holders = {name: table for table in labels for name in table.column_names}
    classes = flat(holders["class_name"]["class_name"]).dictionary_encode()
    columns = {
        "number": pa.array(label_numbers(holders["label_id"]["label_id"])),
        "class_name": classes.cast(NUMBERS.field("class_name").type),
        "image": pc.index_in(flat(holders["key"]["key"]), value_set=flat(images["key"])).cast(pa.int32()),
        **{name: pa.array(numbers(holders[name][name], np.float32)) for name in SIGNALS},
    }
    return pa.table([columns[name] for name in NUMBERS.names], NUMBERS)


def write_numbers(store: Store, run: str, shard: str, tables: dict[str, pa.Table]) -> Part:
    """Write the numbers of a shard by its tables; equal rows give equal bytes, and so the same name."""
    done = tables["images"].filter(pc.equal(tables["images"]["outcome"], "done"))
    table = numbers_of(done, *(tables[stage] for stage in _OF_LABELS))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, NUMBERS) as writer:
        writer.write_table(table.combine_chunks())
    data = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(data).hexdigest()
    key = part_key(run, shard, "numbers", sha256).removesuffix(".parquet") + ".arrow"
    store.put(key, data)
    return Part(name=key, sha256=sha256, rows=table.num_rows)


def read_numbers(store: Store, part: Part) -> pa.Table | None:
    """Read the numbers of a shard's labels, of schema NUMBERS; None where the file has gone, or is of another version.

    Raises:
        StoreError: The file is damaged.
    """
    try:
        data = store.get(part.name).data
    except ObjectMissingError:
        return None
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise StoreError(
            f"{store.uri}/{part.name} is not the file that was written; delete it: labels stay as they are"
        )
    table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    return table if table.schema.equals(NUMBERS) else None
