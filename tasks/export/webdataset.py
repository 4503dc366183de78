"""Writes WebDataset: tar files with an image and its labels as JSON under one key, in the order they are trained by.

A key ends at the first dot of a file's name, so dots in names are written as %2E, and % as %25.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from vouch_labels.tasks.decode import sniff
from vouch_labels.tasks.export.coco import annotation_entry
from vouch_labels.tasks.export.written import ALL, Target, WrittenImage
from vouch_labels.tasks.labels.records import AnnotationFile

FILE_BYTES: Final = 480 << 20
_EXTENSIONS: Final = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp", "GIF": "gif", "HEIC": "heic",
    "AVIF": "avif", "JPEG 2000": "jp2",
}  # fmt: skip


class WebDatasetFiles:
    """<split>-00000.tar and so on (all-00000.tar without splits), and classes.json."""

    def __init__(self, target: Target) -> None:
        """Take where it goes."""
        self._target = target
        self._numbers = {name: number for number, name in enumerate(target.class_names)}
        self._shards: dict[str, _Shards] = {}
        self._keys: set[int] = set()

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["WebDatasetFiles"]:
        """Open the first file of each split; classes.json comes last, files of an earlier export go."""
        files = cls(target)
        with ExitStack() as stack:
            for name in target.splits or (ALL,):
                files._shards[name] = stack.enter_context(_Shards(target, name))
            yield files
        written = {one.file for shards in files._shards.values() for one in shards.files}
        for info in list(target.store.list(f"{target.prefix}/")):
            if info.key.endswith(".tar") and info.key not in written:
                target.store.delete(info.key)
        text = json.dumps(list(target.class_names), ensure_ascii=False)
        target.store.put(f"{target.prefix}/classes.json", f"{text}\n".encode())

    def add(self, image: WrittenImage) -> None:
        """Append an image with its content."""
        labels = [
            annotation_entry(one, image.image, image.number, self._numbers, self._target.config.masks)
            for one in image.labels
        ]
        about = {
            "file_name": image.image.key,
            "width": image.image.width,
            "height": image.image.height,
            "not_exhaustive_category_ids": [self._numbers[name] for name in image.not_exhaustive],
        }
        head = json.dumps(about, ensure_ascii=False).removesuffix("}")
        text = f'{head}, "annotations": [{", ".join(labels)}]}}'
        extension = _EXTENSIONS.get(sniff(image.data), "bin")
        members = {extension: image.data, "json": text.encode()}
        self._shards[image.split or ALL].add(self._key(image.image.key), members, len(labels))

    def files(self, split: str) -> list[AnnotationFile]:
        """The files of a split."""
        wanted = self._shards.values() if split == ALL else [self._shards[split]]
        return [one for shards in wanted for one in shards.files]

    def _key(self, name: str) -> str:
        """The image's name without its end; with it, where an image that came before has the same."""
        folder, slash, base = name.replace("%", "%25").rpartition("/")
        stem = base.rpartition(".")[0] or base
        for one in (stem, base):
            key = folder + slash + one.replace(".", "%2E")
            if hash(key) not in self._keys:
                break
        self._keys.add(hash(key))
        return key


class _Shards:
    """The tar files of one split; a context that ends the last one."""

    def __init__(self, target: Target, name: str) -> None:
        self._store, self._stem = target.store, f"{target.prefix}/{name}"
        self._stack = ExitStack()
        self._size = 0
        self.files: list[AnnotationFile] = []

    def __enter__(self) -> "_Shards":
        self._next()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401 - as contextlib's
        self._stack.__exit__(*error)

    def add(self, key: str, members: dict[str, bytes], labels: int) -> None:
        if self._size >= FILE_BYTES:
            self._stack.close()
            self._next()
        for extension, data in members.items():
            # Owner, time and mode are TarInfo's own: the same whoever writes.
            about = tarfile.TarInfo(f"{key}.{extension}")
            about.size = len(data)
            self._tar.addfile(about, io.BytesIO(data))
            self._size += len(data)
        last = self.files[-1]
        self.files[-1] = AnnotationFile(file=last.file, images=last.images + 1, annotations=last.annotations + labels)

    def _next(self) -> None:
        key = f"{self._stem}-{len(self.files):05d}.tar"
        self._stack = ExitStack()
        out = self._stack.enter_context(self._store.open_writer(key))
        self._tar = self._stack.enter_context(tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT))
        self._size = 0
        self.files.append(AnnotationFile(file=key))
