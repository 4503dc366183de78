"""The memory that decoding shares, and what is said where there is too little."""

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from vouch_labels.tasks.memory import Memory, Queue, StoppedError, memory_of

pillow_heif.register_heif_opener()  # for writing

SIZE = (6000, 4000)
FILES: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {},
    "progressive JPEG": {"progressive": True},
    "TIFF": {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30},
    "WEBP": {"lossless": True, "method": 0, "quality": 0},
    "BMP": {},
    "GIF": {},
    "AVIF": {"speed": 10},
    "HEIF": {"enc_params": {"preset": "ultrafast"}},
    "JPEG2000": {"tile_size": (1024, 1024)},
}

CHILD = """
import pathlib, resource, sys
from vouch_labels.tasks.decode import DecodedImage, decode
data = sys.stdin.buffer.read()
small = pathlib.Path(sys.argv[1]).read_bytes()
assert isinstance(decode("a", small, 10**9), DecodedImage)  # whatever is loaded first
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), resource.RLIM_INFINITY))
short = decode("a", data, 10**9)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert isinstance(decode("a", data, 10**9), DecodedImage)
print(short.step, short.reason)
"""


def test_ahead_of_their_turn_images_take_a_quarter() -> None:
    memory = Memory(400)
    queue = Queue(memory)
    first, second, third = (queue.room(place) for place in range(3))
    second.hold(60)
    third.hold(40)
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def grow() -> None:
            waiting.set()
            third.hold(41)

        grown = pool.submit(grow)
        waiting.wait()
        first.hold(300)
        assert memory.held == 400
        assert not grown.done()
        first.hold(0)
        second.hold(0)
        grown.result()
    assert memory.held == 41


def test_the_next_image_goes_when_nothing_else_is_decoded_however_large() -> None:
    memory = Memory(100)
    queue = Queue(memory)
    first, second = queue.room(0), queue.room(1)
    second.hold(25)
    with first.decoding(memory.most):
        assert memory.held == 100
    with first.decoding(1000):
        assert memory.held == 1025
    assert memory.held == 25


def test_decoding_waits_for_what_is_decoded() -> None:
    memory = Memory(100)
    order: list[str] = []
    with ThreadPoolExecutor(1) as pool:

        def decode() -> None:
            with memory.room().decoding(60):
                order.append("second")

        with memory.room().decoding(60):
            later = pool.submit(decode)
            order.append("first")
        later.result()
    assert (order, memory.held, memory.decoding) == (["first", "second"], 0, 0)


def test_alone_is_alone_and_in_turn() -> None:
    memory = Memory(100)
    queue = Queue(memory)
    order: list[str] = []
    with ThreadPoolExecutor(2) as pool:

        def alone() -> None:
            with queue.room(1).alone():
                order.append("alone")

        with queue.room(0).decoding(10):
            second = pool.submit(alone)
            queue.advance()
            order.append("first")
        second.result()
        assert order == ["first", "alone"]
        with queue.room(1).alone():
            other = pool.submit(lambda: memory.room().hold(1))
            assert not other.done()
        other.result()


def test_those_that_wait_give_up_when_the_consumer_leaves() -> None:
    memory = Memory(100)
    queue = Queue(memory)
    queue.room(1).hold(25)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.room(2).hold, 25)
        queue.stop()
        with pytest.raises(StoppedError):
            waiting.result()


def test_an_error_gives_memory_back() -> None:
    memory = Memory(100)
    with pytest.raises(OSError, match="damaged"), memory.room().decoding(60):
        raise OSError("damaged")
    assert (memory.held, memory.decoding) == (0, 0)


def test_the_process_shares_one_memory_of_a_size() -> None:
    assert memory_of(64) is memory_of(64)
    assert memory_of(64).limit == 64 << 20


# With too little memory a sound file is never called damaged, whatever its decoder says: shown in processes apart.


def encoded(kind: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("L" if kind == "GIF" else "RGB", size, 7).save(file, kind.split()[-1], **FILES[kind])
    return file.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.parametrize("kind", FILES)
def test_a_sound_file_is_left_for_the_next_run(kind: str, tmp_path) -> None:
    small = tmp_path / "small"
    small.write_bytes(encoded(kind, (64, 64)))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(small)], input=encoded(kind, SIZE), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith("fetch unforeseen MemoryError: decoding it may need ")
