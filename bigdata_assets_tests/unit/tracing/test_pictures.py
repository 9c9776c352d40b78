"""Pictures of a page."""

import io

import numpy as np
import pytest
from PIL import Image

from bigdata_assets.tracing import pictures


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "1", "P"])
def test_a_picture_is_made_small_whatever_its_mode(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (1_280, 320)).save(buffer, "TIFF")
    made = opened(pictures.small(buffer.getvalue()))
    assert (made.format, made.size) == ("JPEG", (pictures.MOST_PX, pictures.MOST_PX // 4))


def test_what_is_no_picture_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("L", (20, 20)).save(buffer, "PNG")
    for data in (b"", b"no picture", buffer.getvalue()[:40]):
        with pytest.raises(ValueError, match="no picture"):
            pictures.small(data)
    monkeypatch.setattr(pictures, "MOST_DECODED_PX", 399)
    with pytest.raises(ValueError, match="20 times 20 pixels"):
        pictures.small(buffer.getvalue())


def test_greys_go_from_the_lowest_to_the_highest() -> None:
    made = opened(pictures.grey(np.array([[-1.0, 0.0, 1.0], [np.nan, -1.0, 1.0]])))
    assert np.asarray(made).tolist() == [[0, 127, 255], [0, 0, 255]]
    assert np.asarray(opened(pictures.grey(np.zeros((2, 2))))).tolist() == [[0, 0], [0, 0]]
