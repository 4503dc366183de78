"""Takes frames out of videos, at a rate or where the scene changes, decoding forward without unpacking anything."""

import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from vouch_labels.schemas.campaign import VideoOptions
from vouch_labels.schemas.errors import ContainerError
from vouch_labels.tasks.store.cursor import Cursor, Item
from vouch_labels.tasks.store.members import Gathering, Member, Members
from vouch_labels.tasks.store.ranges import RangeFile
from vouch_labels.tasks.store.store import ObjectInfo, Store

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SEEK_MS: Final = 10_000
"""Milliseconds from which on it is cheaper to look for a key frame than to decode all that lies between."""
QUALITY: Final = 95
_MOST_FRAMES: Final = 1_000_000
"""Frames of one video; what claims more is damaged, or made to fill the disk."""
_LAST_MS: Final = 1000
"""How long the last frame is shown where nothing says so."""
_SMALL: Final = (64, 36)
"""Width and height at which two frames are compared."""
_HEAD: Final = 512
_THREADS: Final = 4


def read_video(store: Store, info: ObjectInfo, options: VideoOptions, max_pixels: int) -> Members:
    """List the frames of a video: 00-00-12.500.jpg is what is shown 12.5 seconds after its first frame.

    Times are multiples of one over the rate, up to the length that the file states; a file that states none is read for
    it. With `scene_change` the video is decoded, and of these frames those are listed whose brightness, at 64 x 36
    pixels, differs by so much on average from the last one listed.

    Raises:
        StoreError: As `Store.get_range`.
    """
    file = RangeFile(store, info)
    try:
        with _opened(file, max_pixels) as (container, stream):
            length = _length_ms(container, stream)
        count = int(Fraction(length) * Fraction(options.frames_per_second) / 1000)
        if count >= _MOST_FRAMES:
            return Gathering().members(f"damaged video: it claims {count:,} frames at source.video.frames_per_second")
        # A length that is a whole number of steps ends with the frame before it.
        times = [round(1000 * number / options.frames_per_second) for number in range(count + 1)]
        times = [time for time in times if time < length] or [0]
        if options.scene_change is not None:
            times = list(_changes(RangeFile(store, info), times, options.scene_change, max_pixels))
    except ContainerError as error:
        return Gathering().members(str(error))
    found = Gathering()
    hours = max(2, len(str(times[-1] // 3_600_000)))
    for time in times:
        found.add(Member(_name(time, hours), time, -1))
    return found.members()


def frames_of(store: Store, info: ObjectInfo, members: Members, max_pixels: int, most_kept: int) -> Cursor:
    """Open the listed frames of a video for reading in their order, as JPEG files; by the row of `members`.

    most_kept: bytes of frames that are kept for threads that come late.
    """
    times: list[int] = members.table.column("place").to_pylist()

    def enter(number: int) -> Generator[tuple[int, Item], None, None]:
        for at, frame in _frames(RangeFile(store, info), times[number:], max_pixels):
            yield number + at, frame if isinstance(frame, ContainerError) else _jpeg(_upright(frame))

    return Cursor(len(times), enter, lambda here, there: times[there] - times[min(here, there)] > SEEK_MS, most_kept)


def _name(time: int, hours: int) -> str:
    seconds, milliseconds = divmod(time, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:0{hours}}-{minutes % 60:02}-{seconds:02}.{milliseconds:03}.jpg"


def _length_ms(container: "InputContainer", stream: "VideoStream") -> float:
    if stream.duration and stream.time_base:
        return float(1000 * stream.duration * stream.time_base)
    if container.duration:
        return container.duration / 1000
    # As browsers record it: nothing but its last packet says how long it is.
    base = stream.time_base or Fraction(1, 1000)
    start, last = stream.start_time or 0, 0
    for packet in container.demux(stream):
        if packet.pts is not None:
            last = max(last, packet.pts - start + (packet.duration or 1))
    return float(1000 * last * base)


def _changes(file: RangeFile, times: Sequence[int], least: float, max_pixels: int) -> Iterator[int]:
    """The times of frames that differ from the one before by at least `least`, 0 to 1; the first one always."""
    last: np.ndarray[Any, Any] | None = None
    for at, frame in _frames(file, times, max_pixels):
        if isinstance(frame, ContainerError):
            yield times[at]  # so that it fails with its reason
            continue
        grey = frame.reformat(*_SMALL, format="gray").to_ndarray().astype(np.float32) / 255
        if last is None or float(np.abs(grey - last).mean()) >= least:
            last = grey
            yield times[at]


def _frames(
    file: RangeFile, times: Sequence[int], max_pixels: int
) -> Iterator[tuple[int, "VideoFrame | ContainerError"]]:
    """Yield for each of some times in milliseconds, ascending, its place and the frame that is shown then."""
    with _opened(file, max_pixels) as (container, stream):
        base, start = stream.time_base or Fraction(1, 1000), stream.start_time or 0

        def begin(frame: "VideoFrame") -> float:
            return float(1000 * ((frame.pts or 0) - start) * base)

        decoded = _decoded(container, stream)
        if times[0] > SEEK_MS:
            container.seek(start + int(times[0] / 1000 / base), stream=stream)
            decoded = _decoded(container, stream)
            first = next(decoded, None)
            if first is None or isinstance(first, ContainerError) or begin(first) > times[0]:
                # Formats without an index may be entered behind the place.
                container.seek(start, stream=stream)
                decoded = _decoded(container, stream)
            else:
                decoded = chain([first], decoded)
        shown: VideoFrame | ContainerError | None = None
        until, at = 0.0, 0
        for frame in decoded:
            if isinstance(frame, ContainerError):
                shown = frame
                continue
            begins = begin(frame)
            while at < len(times) and times[at] < begins - 0.5:
                yield at, frame if shown is None else shown
                at += 1
            if at == len(times):
                return
            until = begins + float(1000 * (frame.duration or 0) * base or _LAST_MS)
            shown = frame
        for place in range(at, len(times)):
            if shown is not None and times[place] < until + 0.5:
                yield place, shown
            else:
                yield place, ContainerError("damaged video: nothing can be decoded at this time")


def _decoded(container: "InputContainer", stream: "VideoStream") -> Iterator["VideoFrame | ContainerError"]:
    """Decode frame by frame; for what cannot be decoded comes an error instead, and then what follows."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            yield _damaged(error)
            return
        try:
            for frame in packet.decode():
                yield ContainerError("damaged video: this frame is not whole") if frame.is_corrupt else frame
        except av.EOFError:
            return
        except av.FFmpegError as error:
            yield _damaged(error)


@contextmanager
def _opened(file: RangeFile, max_pixels: int) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """Open a video by the format that its first bytes show.

    Never by guessing: formats such as playlists name other files and addresses, which would be opened.

    Raises:
        ContainerError: It is no video that can be decoded, or its frames are too large.
        StoreError: The store failed.
    """
    import av
    from av.video.stream import VideoStream

    try:
        form = _format(file.read(_HEAD))
        file.seek(0)
        with closing(av.open(file, "r", format=form)) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise ContainerError("no video: it has no pictures")
            if stream.codec_context is None:  # its types do not say so
                raise ContainerError("no decoder for this video is in the installed package av")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > max_pixels:
                raise ContainerError(
                    f"too many pixels: {width} x {height} is more than source.max_pixels, {max_pixels}"
                )
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
            # Each thread of the decoder holds frames.
            stream.thread_type, stream.codec_context.thread_count = "AUTO", _THREADS
            yield container, stream
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        if file.error is not None:
            raise file.error from error
        raise _damaged(error) from error


def _format(head: bytes) -> str:
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"\0\0\1\xba"):
        return "mpeg"
    if head[:1] == head[188:189] == head[376:377] == b"G":
        return "mpegts"
    if head.startswith(b"\x30\x26\xb2\x75"):
        return "asf"
    raise ContainerError("damaged video, or none that is read: MP4, MOV, MKV, WebM, AVI, MPEG and WMV are")


def _upright(frame: "VideoFrame") -> Image.Image:
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _damaged(error: Exception) -> ContainerError:
    words = " ".join(str(error).split())
    return ContainerError(f"damaged video: {words[:150] or type(error).__name__}")
