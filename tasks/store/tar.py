"""Lists the members of a tar file by reading its headers alone."""

import tarfile
from typing import Final

from vouch_labels.schemas.errors import ContainerError
from vouch_labels.tasks.store.members import Gathering, Member, Members, member_name
from vouch_labels.tasks.store.ranges import RangeFile
from vouch_labels.tasks.store.store import ObjectInfo, Store

SPECIAL: Final = "links and devices in tar files"
UNSAFE: Final = "names in tar files that lead outside or are not UTF-8"
_MOST_HEADER: Final = 8 << 20
_LOOKED_BEHIND: Final = 64 << 10
"""Bytes behind the end, which tars fill up with zeros to ten kilobytes."""
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip (gunzip)",
    b"BZh": "bzip2 (bunzip2)",
    b"\xfd7zXZ": "xz (unxz)",
    b"\x28\xb5\x2f\xfd": "Zstandard (unzstd)",
}
"""First bytes of what is compressed -> by what, and what undoes it."""


def read_tar(store: Store, info: ObjectInfo) -> Members:
    """List the files of an uncompressed tar: ustar, pax and GNU, so WebDataset shards too.

    Links, devices and sparse files are left out, and names that lead outside. Of several members of one name the last
    one stands, as in unpacking. Of a tar that is cut off, the members before are listed.

    Raises:
        StoreError: As `Store.get_range`.
    """
    file = RangeFile(store, info, _MOST_HEADER)
    found = Gathering()
    damaged = ""
    head = file.read(8)
    for start, what in _COMPRESSED.items():
        if head.startswith(start):
            return found.members(f"compressed by {what}: no image of it can be read by itself; unpack it")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            damaged = _walk(tar, file, info, found)
    except (tarfile.TarError, ContainerError, ValueError, RecursionError, OverflowError) as error:
        damaged = f"damaged tar: {' '.join(str(error).split()) or type(error).__name__}"
    return found.members(damaged)


def _walk(tar: tarfile.TarFile, file: RangeFile, info: ObjectInfo, found: Gathering) -> str:
    """Gather the members; returns what is wrong."""
    before, count = -1, 0
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined] # not in its types; it would hold every one that it has read
        if tar.offset <= before:
            return "damaged tar: a header leads back"
        before = tar.offset
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            found.left_out[SPECIAL] += 1
            continue
        if member.size < 0 or member.offset_data + member.size > info.size:
            return f"damaged tar: it ends within a file, behind {count:,} whole ones"
        name = member_name(member.name)
        if name is None:
            found.left_out[UNSAFE] += 1
            continue
        found.add(Member(name, member.offset_data, member.size))
        count += 1
    # The package takes a header that it does not understand for the end.
    file.seek(tar.offset)
    if any(block := file.read(tarfile.BLOCKSIZE)) or len(block) not in {0, tarfile.BLOCKSIZE}:
        return f"damaged tar: no header at byte {tar.offset:,}, behind {count:,} whole files"
    if any(file.read(_LOOKED_BEHIND)):
        return f"something follows the end of the tar, behind {count:,} files; of several in one file the first is read"
    return ""
