"""Frames of videos as images: which are listed, what they show, how they are read, what is damaged."""

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.containers import HEIGHT, STEP, WIDTH, Counting, grey, video_of
from vouch_labels.schemas.campaign import Source, VideoOptions
from vouch_labels.schemas.errors import ContainerError
from vouch_labels.tasks.plan.plan import list_source
from vouch_labels.tasks.store import source as module
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.source import SourceStore, _Known, frame_of
from vouch_labels.tasks.store.store import Store


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", _Known())


def opened(store: Store, **video: Any) -> SourceStore:
    return SourceStore(store, Source(uri="images", video=video))


def keys(view: SourceStore, **video: Any) -> list[str]:
    return [ref.key for ref in list_source(Source(uri="images", video=video), view)]


def shown(data: bytes) -> float:
    """The number of the frame that a picture shows."""
    return float(np.asarray(Image.open(io.BytesIO(data)), np.float64).mean()) / STEP


@pytest.mark.parametrize(
    ("name", "form", "codec"),
    [
        ("a.mp4", "mp4", "libx264"),
        ("a.MOV", "mov", "mpeg4"),
        ("a.mkv", "matroska", "libx264"),
        ("a.webm", "webm", "libvpx"),
        ("a.avi", "avi", "mpeg4"),
        ("a.mts", "mpegts", "mpeg4"),
        ("a.wmv", "asf", "mpeg4"),
        ("a.mp4", "matroska", "libx264"),
    ],
)
def test_a_frame_is_what_is_shown_at_its_time(tmp_path: Path, name: str, form: str, codec: str) -> None:
    folder = LocalStore(tmp_path)
    folder.put(name, video_of(100, form, codec))
    view = opened(folder)
    found = keys(view)
    assert found == [f"{name}/00-00-{second:02}.000.jpg" for second in range(20)]
    assert [frame_of(key) for key in found] == [(name, float(second)) for second in range(20)]
    numbers = [shown(view.get(key).data) for key in found]
    assert numbers == pytest.approx([5.0 * second for second in range(20)], abs=1.2)
    # In any order, from any place, by a process that comes new to it.
    for second in (17, 3, 12):
        again = opened(folder)
        assert again.get(found[second]) == view.get(found[second])


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (0.1, ["00-00-00.000", "00-00-10.000"]),
        (2.5, ["00-00-00.000", "00-00-00.400", "00-00-00.800", "00-00-01.200"]),
        (10, ["00-00-00.000", "00-00-00.100", "00-00-00.200"]),
    ],
)
def test_frames_come_at_the_rate_that_is_asked_for(tmp_path: Path, rate: float, times: list[str]) -> None:
    folder = LocalStore(tmp_path)
    folder.put("a.mp4", video_of(100))
    view = opened(folder, frames_per_second=rate)
    found = keys(view, frames_per_second=rate)
    assert len(found) == 20 * rate
    assert [key.removeprefix("a.mp4/").removesuffix(".jpg") for key in found[: len(times)]] == times
    last = frame_of(found[-1])
    assert last is not None
    assert shown(view.get(found[-1]).data) == pytest.approx(int(last[1] * 5), abs=1.2)


def test_scenes_alone(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path)
    scenes = [20, 20, 20, 90, 90, 20, 20, 20, 21, 22, 23, 24]
    folder.put("a.mp4", video_of(60, picture=lambda number: grey(scenes[number // 5])))
    video = {"scene_change": 0.2}
    view = opened(folder, **video)
    found = keys(view, **video)
    assert found == [f"a.mp4/00-00-{second:02}.000.jpg" for second in (0, 3, 5)]
    assert [round(shown(view.get(key).data)) for key in found] == pytest.approx([20, 90, 20], abs=1)


def test_frames_that_follow_are_decoded_in_one_go_by_many_threads(moto_store: Store) -> None:
    noise = np.random.default_rng(0)
    data = video_of(
        300, codec="mpeg4", picture=lambda number: noise.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    )
    moto_store.put("a.mp4", data)
    counting = Counting(moto_store)
    view = opened(counting)
    found = keys(view)
    assert len(found) == 60
    # Listed by its index, not by its frames.
    assert counting.bytes < len(data) / 4
    counting.ranges.clear()
    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(lambda key: view.get(key).data, found))
    assert counting.bytes < 1.5 * len(data)
    # From the middle, what lies before is not read.
    counting.ranges.clear()
    late = opened(counting)
    assert [late.get(key).data for key in found[50:]] == contents[50:]
    assert counting.bytes < len(data) / 2


def test_of_many_short_clips_each_is_read_once(tmp_path: Path) -> None:
    """Threads are in several clips at once."""
    folder = LocalStore(tmp_path)
    clip = video_of(15)
    for number in range(40):
        folder.put(f"{number:02}.mp4", clip)
    counting = Counting(folder)
    view = opened(counting)
    found = keys(view)
    assert len(found) == 120
    counting.ranges.clear()
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda key: view.get(key).data, found))
    assert len(set(contents)) == 3
    # Each is opened once, or twice where a later frame came first.
    assert counting.bytes < 2.5 * 40 * len(clip)


def test_a_video_that_was_turned_is_upright(tmp_path: Path) -> None:
    """Phones write how they were held into the track's header."""

    def picture(number: int) -> np.ndarray:
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[:, : WIDTH // 2] = 200
        return pixels

    data = bytearray(video_of(10, picture=picture))
    header = data.index(b"tkhd") + 4
    matrix = header + 40
    one = (1 << 16).to_bytes(4)
    # A quarter clockwise (ISO/IEC 14496-12, 8.3.2): the left side comes up.
    data[matrix : matrix + 36] = (
        bytes(4) + one + bytes(4) + (-1 << 16).to_bytes(4, signed=True) + bytes(4) * 4 + (1 << 30).to_bytes(4)
    )
    folder = LocalStore(tmp_path)
    folder.put("a.mp4", bytes(data))
    view = opened(folder)
    pixels = np.asarray(Image.open(io.BytesIO(view.get(keys(view)[0]).data)))
    assert pixels.shape == (WIDTH, HEIGHT, 3)
    assert pixels[: WIDTH // 2 - 4].mean() > 180
    assert pixels[WIDTH // 2 + 4 :].mean() < 20


def playlist(address: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{address}\n#EXT-X-ENDLIST\n".encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "damaged video, or none that is read"),
        (b"no video at all" * 100, "damaged video, or none that is read"),
        (video_of(20)[:400], "damaged video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "damaged video, or none that is read"),
    ],
)
def test_what_is_no_video_says_so(store: Store, data: bytes, words: str) -> None:
    store.put("a.mp4", data)
    view = opened(store)
    assert keys(view) == ["a.mp4"]
    with pytest.raises(ContainerError, match=words):
        view.get("a.mp4")


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "secret.ts"
    other.write_bytes(video_of(20, "mpegts", "mpeg4"))
    folder = LocalStore(tmp_path / "images")
    folder.put("a.mp4", playlist(str(other)))
    view = opened(folder)
    assert keys(view) == ["a.mp4"]
    with pytest.raises(ContainerError, match="none that is read"):
        view.get("a.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    folder = LocalStore(tmp_path)
    folder.put("a.mp4", file.getvalue())
    with pytest.raises(ContainerError, match="it has no pictures"):
        opened(folder).get("a.mp4")


def test_frames_that_are_too_large_are_not_decoded(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path)
    folder.put("a.mp4", video_of(5))
    view = SourceStore(folder, Source(uri="images", video=VideoOptions(), max_pixels=WIDTH * HEIGHT - 1))
    with pytest.raises(ContainerError, match=r"too many pixels: 96 x 64 is more than source\.max_pixels"):
        view.get("a.mp4")


def test_a_damaged_part_fails_and_the_rest_is_there(tmp_path: Path) -> None:
    """Of a video that is cut off the frames before are labelled, and no frame stands for one that is not there."""
    data = video_of(100, "matroska", "mpeg4", gop=5)
    folder = LocalStore(tmp_path)
    folder.put("cut.mkv", data[: len(data) // 2])
    middle = len(data) // 2
    folder.put("hole.mkv", data[:middle] + bytes(3000) + data[middle + 3000 :])
    view = opened(folder)
    for name in ("cut.mkv", "hole.mkv"):
        good, bad = 0, 0
        found = [key for key in keys(view) if key.startswith(name)]
        assert len(found) == 20
        for second, key in enumerate(found):
            try:
                assert shown(view.get(key).data) == pytest.approx(5 * second, abs=1.2)
                good += 1
            except ContainerError:
                bad += 1
        assert good >= 5, name
        assert bad >= 1, name


def test_a_length_that_nobody_has_seen_is_refused(tmp_path: Path) -> None:
    data = bytearray(video_of(5, "matroska"))
    length = data.index(b"\x44\x89\x88") + 3  # Duration in its Info, a double
    data[length : length + 8] = struct.pack(">d", 1e12)
    folder = LocalStore(tmp_path)
    folder.put("a.mkv", bytes(data))
    view = opened(folder, frames_per_second=1000)
    assert keys(view, frames_per_second=1000) == ["a.mkv"]
    with pytest.raises(ContainerError, match=r"it claims .* frames at source\.video"):
        view.get("a.mkv")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("d/a.MP4/00-00-12.500.jpg", ("d/a.MP4", 12.5)),
        ("a.mkv/101-01-00.001.jpg", ("a.mkv", 363660.001)),
        ("a.jpg", None),
        ("a.mp4/1.jpg", None),
        ("a.tar/00-00-12.500.jpg", None),
        ("00-00-12.500.jpg", None),
    ],
)
def test_the_key_of_a_frame_says_its_time(key: str, expected: tuple[str, float] | None) -> None:
    assert frame_of(key) == expected
