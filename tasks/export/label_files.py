"""Writes a data set's many small files, in threads, and deletes those of an earlier one."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

from vouch_labels.tasks.store.store import Store

THREADS = 8


class LabelFiles:
    """Files of one folder that readers take as a whole: what an export did not write would be taken for part of it."""

    def __init__(self, store: Store, prefix: str, pool: ThreadPoolExecutor) -> None:
        """Take the key of the data set's folder."""
        self._store, self._prefix, self._pool = store, prefix, pool
        self._waiting: deque[Future[bool]] = deque()
        # Hashes, as there may be millions of names.
        self._present: set[int] = set()

    @classmethod
    @contextmanager
    def open(cls, store: Store, prefix: str, *folders: str) -> Iterator[Self]:
        """Write files; when all are written, others in these folders are deleted."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="labels") as pool:
            files = cls(store, prefix, pool)
            yield files
            while files._waiting:
                files._waiting.popleft().result()
        for folder in folders:
            for info in list(store.list(f"{prefix}/{folder}/")):
                if hash(info.key) not in files._present and _is_within(store, info.key, prefix):
                    store.delete(info.key)

    def keep(self, path: str) -> None:
        """Let a file be that is there already."""
        self._present.add(hash(f"{self._prefix}/{path}"))

    def put(self, path: str, text: str) -> None:
        """Write a file, soon; an error is raised by a later call or at the end."""
        self.keep(path)
        self._waiting.append(self._pool.submit(self._store.put, f"{self._prefix}/{path}", text.encode()))
        if len(self._waiting) > 4 * THREADS:
            self._waiting.popleft().result()


def _is_within(store: Store, key: str, prefix: str) -> bool:
    """Whether a file lies in the data set's folder itself, and not in one that a link in it leads to."""
    path, folder = store.local_path(key), store.local_path(prefix)
    return path is None or folder is None or path.parent.resolve().is_relative_to(folder.resolve())
