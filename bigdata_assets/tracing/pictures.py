"""Pictures for a page: no larger than can be looked at."""

import io
from typing import Any

MOST_PX = 640
MOST_DECODED_PX = 100_000_000


def grey(pixels: Any) -> bytes:
    """A PNG of a (rows, columns) array of numbers, the lowest black and the highest white."""
    import numpy as np
    from PIL import Image

    low, high = np.nanmin(pixels), np.nanmax(pixels)
    shares = np.nan_to_num((pixels - low) / max(high - low, 1e-30))
    buffer = io.BytesIO()
    Image.fromarray((shares * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def small(data: bytes, most_px: int = MOST_PX) -> bytes:
    """A picture's bytes as a JPEG of at most so many pixels a side.

    Raises:
        ValueError: it is none, or has too many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MOST_DECODED_PX:
                raise ValueError(f"the picture has {picture.width:,} times {picture.height:,} pixels")
            picture.draft("RGB", (most_px, most_px))
            made = picture.convert("L" if picture.mode in ("L", "1") else "RGB")
            made.thumbnail((most_px, most_px))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"no picture: {error}") from error
    buffer = io.BytesIO()
    made.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
