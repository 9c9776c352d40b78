"""One picture at a time: what its bytes are, its pixels, a box in it, its bytes again. Spark's workers use it.

PIL is given six formats and a limit of pixels; whatever it raises on bytes from outside comes out as a `PictureError`.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Transpose
from scipy.fft import dctn

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
"""What is tried. PIL knows sixty, some of which call other programs."""
MAX_PIXELS = 25_000_000
"""A worker that cuts four chips as large as such a picture, all noise, and turns them, has .9 GB: PIL keeps 4 bytes a
pixel, and picture, chip and turned chip are there at once."""
PNG_LEVEL = 1
"""Of zlib. On photos PIL's own 6 takes 3.7 times as long for files 5 % smaller; 0 half, for files twice as large."""
JPEG_MOST_PX = 65_500
"""Of a side; the format holds no more."""
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What a viewer does to a picture of each EXIF orientation."""
COUNTER_CLOCKWISE = {90: Transpose.ROTATE_90, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_270}
EDGE = 1e-6
"""What floats are off by: a share times a width, in pixels; and a corner of a box at its picture's edge, as a share."""
HASHED_PX = 32


class PictureError(ValueError):
    """Bytes are no usable picture; the message is the reason, for a quarantine."""


class BoxError(ValueError):
    """A box holds no part of its picture; the message is the reason, for a quarantine."""


@dataclass(frozen=True)
class Picture:
    """What a picture's bytes are.

    Attributes:
        width_px: as stored.
        height_px: as stored.
        format: one of FORMATS.
        exif_orientation: 1 to 8; None where nothing, or nothing legal, is said. What a TIFF says is a part of its
            decoding, and is done already.
    """

    width_px: int
    height_px: int
    format: str
    exif_orientation: int | None


def inspect(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """What the bytes are; all of the first frame is decoded to see that it is there.

    Raises:
        PictureError: they are no picture, a part of one, or one with more pixels.
    """
    image = _opened(data, max_pixels)
    width_px, height_px = image.size
    # All of a JPEG's bits are read for an eighth of its size too, for a third of the time.
    image.draft(None, (max(width_px // 8, 1), max(height_px // 8, 1)))
    _load(image)
    # What holds more than one JPEG begins with one.
    format_ = "JPEG" if image.format == "MPO" else str(image.format)
    return Picture(width_px, height_px, format_, _orientation(image))


def decode(data: bytes, max_pixels: int = MAX_PIXELS, turned_by_exif: bool = False) -> Image.Image:
    """The first frame in RGB: 16 bits scaled to 8, what is transparent on white, nothing but pixels in it.

    Args:
        data: the file.
        max_pixels: what has more is not decoded.
        turned_by_exif: as a viewer shows it, not as it is stored.

    Raises:
        PictureError: there is no such picture.
    """
    image = _opened(data, max_pixels)
    _load(image)
    orientation = _orientation(image) if turned_by_exif else None
    try:
        rgb = _rgb(image)
    except Exception as error:
        raise PictureError(f"no RGB can be made of its {image.mode} pixels: {error}") from error
    rgb.info = {}  # a colour profile, a comment: they would be stored with each chip
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """The picture with its header read.

    Raises:
        PictureError: there is none, or it has too many pixels.
    """
    if not data:
        raise PictureError("zero bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise PictureError(f"more than {max_pixels:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(f"not a picture ({', '.join(FORMATS)})") from error
    except Exception as error:
        raise PictureError(f"broken: {_said(error)}") from error
    if width * height > max_pixels:
        raise PictureError(f"more than {max_pixels:,} pixels")
    if width * height == 0:
        raise PictureError("no pixels")
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:
        raise PictureError(f"broken: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{error or type(error).__name__}"


def _orientation(image: Image.Image) -> int | None:
    """Of a loaded picture: a PNG may say it behind its pixels, and a TIFF is turned by loading it."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # noqa: BLE001 -- of the many things that broken EXIF raises, none says how to turn a picture
        return None
    return orientation if type(orientation) is int and 1 <= orientation <= 8 else None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey(np.array(image, np.float32), 0, 65_535)
    if image.mode in ("I", "F"):  # 32 bits, whose range nothing tells
        values = np.nan_to_num(np.array(image, np.float32), posinf=0, neginf=0)
        return _grey(values, float(values.min()), float(values.max()))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(seen, mask=seen.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(values: np.ndarray, black: float, white: float) -> Image.Image:
    values -= black  # in place: a large picture is large enough once
    values *= 255 / ((white - black) or 1)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8)).convert("RGB")


def turned(image: Image.Image, rotation_deg: int) -> Image.Image:
    """The picture turned counter-clockwise by 0, 90, 180 or 270 degrees; no pixel is changed."""
    return image.transpose(COUNTER_CLOCKWISE[rotation_deg]) if rotation_deg else image


def pixel_box(
    x_min: float | None, x_max: float | None, y_min: float | None, y_max: float | None, width_px: int, height_px: int
) -> tuple[int, int, int, int]:
    """The pixels that a box touches: left, top, right, bottom, the last two behind the last.

    Args:
        x_min: left edge as a share of the width; likewise the others.
        x_max: right edge.
        y_min: upper edge.
        y_max: lower edge.
        width_px: of the picture.
        height_px: of the picture.

    Raises:
        BoxError: it touches none.
    """
    corners = (x_min, x_max, y_min, y_max)
    known = [corner for corner in corners if corner is not None and not math.isnan(corner)]
    if len(known) < len(corners):
        raise BoxError("a corner is missing or not a number")
    if min(known) < -EDGE or max(known) > 1 + EDGE:
        raise BoxError("out of the picture")
    if known[0] > known[1] or known[2] > known[3]:
        raise BoxError("inverted: a maximum is below its minimum")
    clipped = [min(max(corner, 0.0), 1.0) for corner in known]
    if clipped[0] == clipped[1] or clipped[2] == clipped[3]:
        raise BoxError("no area")
    left, right = _span(clipped[0], clipped[1], width_px)
    top, bottom = _span(clipped[2], clipped[3], height_px)
    return left, top, right, bottom


def _span(first: float, last: float, n_px: int) -> tuple[int, int]:
    start = min(math.floor(first * n_px + EDGE), n_px - 1)
    return start, max(math.ceil(last * n_px - EDGE), start + 1)


def encoded(image: Image.Image, format_: str, quality: int = 90) -> bytes:
    """An RGB picture as PNG or JPEG; the same bytes for the same pixels.

    Args:
        image: the picture.
        format_: PNG or JPEG.
        quality: of JPEG, 1 to 95.

    Raises:
        PictureError: a side is longer than JPEG can hold.
    """
    if format_ == "JPEG" and max(image.size) > JPEG_MOST_PX:
        raise PictureError(f"a side of more than {JPEG_MOST_PX:,} pixels is no JPEG's")
    how: dict[str, Any] = {"compress_level": PNG_LEVEL} if format_ == "PNG" else {"quality": quality}
    file = io.BytesIO()
    image.save(file, format_, **how)
    return file.getvalue()


def perceptual_hash(image: Image.Image) -> int:
    """64 bits of what a picture looks like from afar, signed; those of near-duplicates differ in few.

    The lowest 8 by 8 of its cosine transform, each bit whether one is above their median (Zauner, Implementation and
    Benchmarking of Perceptual Image Hash Functions, 2010).
    """
    small = image.convert("L").resize((HASHED_PX, HASHED_PX), Image.Resampling.BOX)
    lowest = dctn(np.asarray(small, np.float64))[:8, :8]
    return int(np.packbits(lowest > np.median(lowest)).view(">i8")[0])
