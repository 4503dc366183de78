#!/usr/bin/env bash
# Expected: pyarrow.parquet.write_table cuts a column into pages of about data_page_size, 1 MiB by default, whatever a
#   value's size is.
# Happens: a column of images of 20,000 bytes gets pages of up to 16 MiB and more, sixteen times the target, since the size
#   is looked at after every 1,024 values only (write_batch_size). With write_batch_size=16 the pages are 1 to 2 MB.
# Versions: pyarrow 26.0.1, seen on 2026-12-01.
# Matters: a page is read and unpacked as a whole, so whoever reads one image of a Parquet data set page by page holds up to
#   1,024 of them in memory (a gigabyte, of photographs) unless its row groups are small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1
cat >"$folder/pages.py" <<'PY'
import io
import os

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE, ROWS, MIB = 20_000, 2_000, 1 << 20
table = pa.table({"image": [os.urandom(IMAGE) for _ in range(ROWS)]})


class Reads(io.BytesIO):
    """Remembers the largest read."""

    most = 0

    def read(self, size=-1):
        data = super().read(size)
        self.most = max(self.most, len(data))
        return data


def largest_page(**how):
    """With a buffer smaller than a page, the reader asks for what is left of a page at once."""
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=ROWS, use_dictionary=False, data_page_size=MIB, **how)
    reads = Reads(file.getvalue())
    parquet = pq.ParquetFile(reads, buffer_size=1 << 16, pre_buffer=False)
    reads.most = 0
    rows = sum(batch.num_rows for batch in parquet.iter_batches(8, use_threads=False))
    assert rows == ROWS
    return reads.most / MIB


print("pyarrow", pa.__version__)
usual, small = largest_page(), largest_page(write_batch_size=16)
print(f"data_page_size 1 MiB, images of {IMAGE:,} bytes: pages of {usual:.1f} MiB; write_batch_size=16: {small:.1f} MiB")
assert usual > 8
assert small < 3
PY
"$folder/venv/bin/python" "$folder/pages.py"
echo "FINDING: pages of images are many times data_page_size, since pyarrow compares it after each 1,024 values only"
