"""Videos and pictures on disk. All are written to a temporary name and renamed, so that a file that is there is whole.

``write_video`` is lossless: H.264 in RGB (libx264rgb, quantiser 0), 8 bits, every pixel as the model made it. VLC, mpv,
ffmpeg and Chrome play it; players that know only 4:2:0 (QuickTime, some browsers) do not. For those there is
``write_side_by_side``: ordinary 4:2:0 at nearly full quality, where enlarged pixels lose nothing to coarse colour.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunus.errors import FileError, VideoError, require

GAP = 8
CAPTION = 28
PAPER, INK = (24, 24, 32), (235, 235, 240)


def to_pixels(frames: Any) -> np.ndarray:
    """Frames (f, 3, h, w), 8-bit or floats in [0, 1], tensor or array, as 8-bit (f, h, w, 3)."""
    array = np.asarray(frames.detach().cpu() if hasattr(frames, "detach") else frames)
    if array.ndim != 4 or array.shape[1] != 3 or 0 in array.shape:
        raise VideoError(f"video has shape {array.shape}; it must be (frames, 3, height, width)")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all():
            raise VideoError("video holds values that are NaN or infinite")
        array = np.rint(np.clip(array.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def enlarge(pixels: np.ndarray, times: int) -> np.ndarray:
    """Frames (..., h, w, 3) with every pixel a sharp square of ``times`` by ``times``."""
    return pixels.repeat(times, axis=-3).repeat(times, axis=-2)


def write_video(path: str | Path, frames: Any, fps: int) -> None:
    """Write frames (f, 3, h, w) as a lossless H.264 file at native size."""
    _encode(Path(path), to_pixels(frames), fps, "libx264rgb", "rgb24", {"qp": "0", "preset": "medium"})


def write_side_by_side(
    path: str | Path, left: Any, right: Any, fps: int, names: tuple[str, str] = ("plain", "chosen"), times: int = 4
) -> None:
    """Write two videos of one size beside each other, enlarged, with their names below; the shorter one holds."""
    one, two = to_pixels(left), to_pixels(right)
    if one.shape[1:] != two.shape[1:]:
        raise VideoError(f"videos of {one.shape[1:3]} and {two.shape[1:3]} pixels cannot stand side by side")
    require(times >= 1, "times", times, "at least 1")
    height, width = one.shape[1] * times, one.shape[2] * times
    sheet = np.array(_captioned(height, width, names))
    canvas = np.empty((max(len(one), len(two)), *sheet.shape), np.uint8)
    canvas[:] = sheet
    for i, frame in enumerate(canvas):
        frame[:height, :width] = enlarge(one[min(i, len(one) - 1)], times)
        frame[:height, width + GAP : 2 * width + GAP] = enlarge(two[min(i, len(two) - 1)], times)
    _encode(Path(path), canvas, fps, "libx264", "yuv420p", {"crf": "8", "preset": "medium"})


def write_image(path: str | Path, frames: Any) -> None:
    """Write a video's only frame (1, 3, h, w) as a PNG file at native size."""
    from PIL import Image

    write_png(path, Image.fromarray(to_pixels(frames)[0]))


def write_images_side_by_side(path: str | Path, left: Any, right: Any, names: tuple[str, str], times: int = 4) -> None:
    """Write two images (1, 3, h, w) beside each other, enlarged, with their names below."""
    from PIL import Image

    one, two = enlarge(to_pixels(left)[0], times), enlarge(to_pixels(right)[0], times)
    sheet = _captioned(one.shape[0], one.shape[1], names)
    for i, pixels in enumerate((one, two)):
        sheet.paste(Image.fromarray(pixels), (i * (one.shape[1] + GAP), 0))
    write_png(path, sheet)


def _captioned(height: int, width: int, names: Sequence[str]) -> Any:
    """The still part of the picture; sides are even, as 4:2:0 asks."""
    from PIL import Image, ImageDraw, ImageFont

    size = (2 * width + GAP, height + CAPTION)
    image = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(16)
    for i, name in enumerate(names):
        middle = i * (width + GAP) + width // 2
        draw.text((middle, height + CAPTION // 2), name, INK, font, anchor="mm")
    return image


def write_png(path: str | Path, image: Any) -> None:
    """Write a pillow image."""
    with _renamed(Path(path)) as temporary:
        image.save(temporary, "PNG")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with _renamed(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video file, 8-bit (f, h, w, 3)."""
    import av

    try:
        with av.open(str(path)) as file:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    except (OSError, ValueError, IndexError) as error:  # av's own errors are of these kinds
        raise FileError(f"{path} cannot be read as a video: {error}") from error


def web_video(pixels: np.ndarray, fps: int) -> bytes:
    """Frames (f, h, w, 3), 8-bit, as an H.264 file in 4:2:0 that every browser plays.

    Small frames are doubled, so that the coarse colour of 4:2:0 still has a sample for each pixel.
    """
    pixels = enlarge(pixels, 2) if max(pixels.shape[1:3]) <= 256 else pixels
    height, width = pixels.shape[1:3]
    even = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    file = io.BytesIO()
    # swscale converts with the coefficients of BT.601; untagged, a player would have to guess.
    tagged = {
        "crf": "12",
        "preset": "medium",
        "x264-params": "colorprim=bt470bg:transfer=smpte170m:colormatrix=bt470bg",
    }
    _mux(file, even, fps, "libx264", "yuv420p", tagged)
    return file.getvalue()


def _encode(path: Path, pixels: np.ndarray, fps: int, codec: str, layout: str, options: dict[str, str]) -> None:
    with _renamed(path) as temporary:
        _mux(str(temporary), pixels, fps, codec, layout, options)


def _mux(file: str | IO[bytes], pixels: np.ndarray, fps: int, codec: str, layout: str, options: dict[str, str]) -> None:
    import av

    require(fps >= 1, "fps", fps, "at least 1")
    whole = {"movflags": "faststart"} if isinstance(file, str) else {}  # needs a name to read again
    with av.open(file, "w", format="mp4", options=whole) as f:
        stream = f.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = layout
        stream.codec_context.thread_count = 1  # small pictures; and the same bytes on every machine
        for frame in pixels:
            f.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        f.mux(stream.encode())


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` if all goes well and vanishes if not."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
