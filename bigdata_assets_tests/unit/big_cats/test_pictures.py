"""What bytes are, their pixels, boxes in them; with pictures drawn here, and the real ones where they are."""

import contextlib
import io
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bigdata_assets.big_cats.logic.pictures import (
    BoxError,
    Picture,
    PictureError,
    decode,
    encoded,
    inspect,
    perceptual_hash,
    pixel_box,
    turned,
)
from bigdata_assets_tests.integration.conftest import REAL_DATA

REAL = REAL_DATA / "big_cats"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder with photos at {REAL_DATA}")
pytestmark = pytest.mark.filterwarnings("ignore")  # PIL's, about what is broken
NOISE = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)


def hamming(a, b):
    """In how many of 64 bits hashes differ; int64 arrays, broadcast against each other."""
    different = np.bitwise_xor(np.asarray(a, np.int64), np.asarray(b, np.int64))
    return np.bitwise_count(different.view(np.uint64))  # of a negative number it would count those of its absolute


def file(image, format_="PNG", **options):
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def picture(mode="RGB"):
    return Image.fromarray(NOISE).convert(mode)


def with_orientation(orientation, format_="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(picture(), format_, exif=exif)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


FILES = {
    "JPEG": file(picture(), "JPEG"),
    "progressive JPEG": file(picture(), "JPEG", progressive=True),
    "PNG": file(picture()),
    "GIF": file(picture("P"), "GIF"),
    "WEBP": file(picture(), "WEBP"),
    "BMP": file(picture(), "BMP"),
    "TIFF": file(picture(), "TIFF"),
    "deflated TIFF": file(picture(), "TIFF", compression="tiff_adobe_deflate"),
}


class TestInspect:
    @pytest.mark.parametrize("name", FILES)
    def test_a_picture_is_what_its_bytes_are(self, name):
        assert inspect(FILES[name]) == Picture(90, 60, name.split()[-1], None)

    def test_two_jpegs_in_one_file_are_a_jpeg(self):
        data = file(picture(), "MPO", save_all=True, append_images=[picture()])
        assert Image.open(io.BytesIO(data)).format == "MPO"
        assert inspect(data).format == "JPEG"

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
    def test_a_part_of_one_is_broken(self, name, share):
        with pytest.raises(PictureError, match=r"broken|not a picture"):
            inspect(FILES[name][: int(len(FILES[name]) * share)])

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "zero bytes"),
            (b"<html>404</html>", "not a picture"),
            (b"P6 1 1 255 abc", "not a picture"),  # PIL could read it
            (png_header(30_000, 30_000), "more than 25,000,000 pixels"),
            (png_header(2**31 - 1, 2**31 - 1), "more than 25,000,000 pixels"),
            (png_header(8_000, 8_000), "more than 25,000,000 pixels"),
            (png_header(100, 100), "broken"),
            (FILES["JPEG"][:30], "broken|not a picture"),
        ],
    )
    @pytest.mark.parametrize("read", [inspect, decode])
    def test_what_is_no_usable_picture_is_refused_with_a_reason(self, read, data, reason):
        with pytest.raises(PictureError, match=reason):
            read(data)

    def test_the_limit_of_pixels_is_inclusive_and_comes_before_decoding(self):
        assert inspect(FILES["PNG"], 90 * 60).width_px == 90
        with pytest.raises(PictureError, match="more than 5,399 pixels"):
            inspect(FILES["PNG"][:100], 90 * 60 - 1)

    @pytest.mark.parametrize(
        ("orientation", "told"), [(0, None), (1, 1), (6, 6), (8, 8), (9, None), (65_535, None), (None, None)]
    )
    def test_only_a_legal_orientation_is_told(self, orientation, told):
        data = FILES["JPEG"] if orientation is None else with_orientation(orientation)
        assert inspect(data) == Picture(90, 60, "JPEG", told)

    def test_an_orientation_is_found_in_a_png_and_done_in_a_tiff(self):
        assert inspect(with_orientation(6, "PNG")) == Picture(90, 60, "PNG", 6)
        told = inspect(with_orientation(6, "TIFF"))
        assert (told.width_px, told.height_px, told.exif_orientation) == (60, 90, None)
        assert decode(with_orientation(6, "TIFF"), turned_by_exif=True).size == (60, 90)

    def test_broken_exif_is_none(self):
        assert inspect(file(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).exif_orientation is None


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(FILES)),
    cut=st.floats(0.2, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6),
    in_header=st.booleans(),
)
def test_nothing_but_a_picture_error_comes_of_any_bytes(name, cut, changes, in_header):
    data = bytearray(FILES[name][: int(len(FILES[name]) * cut)])
    for place, its in changes:
        start = int(place * (min(len(data), 200) if in_header else len(data)))
        data[start : start + len(its)] = its
    for read in (inspect, lambda data, most: decode(data, most, turned_by_exif=True)):
        with contextlib.suppress(PictureError):
            read(bytes(data), 10**6)


class TestDecode:
    def check(self, image, *pixels):
        assert image.mode == "RGB"
        assert not image.info
        assert [image.getpixel((place, 0)) for place in range(len(pixels))] == list(pixels)

    def row(self, mode, *values):
        image = Image.new(mode, (len(values), 1))
        for place, value in enumerate(values):
            image.putpixel((place, 0), value)
        return image

    def test_greys_and_bits(self):
        self.check(decode(file(self.row("L", 0, 100))), (0, 0, 0), (100, 100, 100))
        self.check(decode(file(self.row("1", 0, 1))), (0, 0, 0), (255, 255, 255))

    def test_16_bits_are_scaled_and_not_clipped_whatever_the_file_is_called(self):
        data = file(Image.fromarray(np.array([[0, 257, 40_000, 65_535]], np.uint16)))
        assert inspect(data).format == "PNG"
        self.check(decode(data), (0,) * 3, (1,) * 3, (156,) * 3, (255,) * 3)
        big_endian = file(Image.fromarray(np.array([[0, 40_000]], ">u2")), "TIFF")
        self.check(decode(big_endian), (0,) * 3, (156,) * 3)

    @pytest.mark.parametrize("type_", [np.int32, np.float32])
    def test_32_bits_are_scaled_from_the_lowest_to_the_highest(self, type_):
        data = file(Image.fromarray(np.array([[-1000, 0, 1000]], type_)), "TIFF")
        self.check(decode(data), (0,) * 3, (128,) * 3, (255,) * 3)
        self.check(decode(file(Image.fromarray(np.array([[7, 7]], type_)), "TIFF")), (0,) * 3)

    def test_what_is_no_number_is_0(self):
        data = file(Image.fromarray(np.array([[np.nan, -1000, 1000, np.inf]], np.float32)), "TIFF")
        self.check(decode(data), (128,) * 3, (0,) * 3, (255,) * 3, (128,) * 3)

    def test_what_is_transparent_is_white(self):
        half = self.row("RGBA", (255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51))
        self.check(decode(file(half)), (255, 0, 0), (255, 255, 255), (204, 204, 204))
        self.check(decode(file(self.row("LA", (10, 255), (10, 0)))), (10, 10, 10), (255, 255, 255))
        self.check(decode(file(self.row("RGB", (1, 2, 3), (4, 5, 6)), transparency=(4, 5, 6))), (1, 2, 3), (255,) * 3)
        colours = self.row("P", 0, 1)
        colours.putpalette([9, 8, 7, 1, 1, 1])
        self.check(decode(file(colours, transparency=1)), (9, 8, 7), (255, 255, 255))
        self.check(decode(file(colours, "GIF", transparency=1)), (9, 8, 7), (255, 255, 255))

    def test_inks_are_not_inverted(self):
        inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        for data in (file(inks, "JPEG", quality=100), file(inks, "TIFF")):
            assert np.abs(np.asarray(decode(data), int) - [255, 0, 0]).max() <= 2

    @pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
    def test_of_an_animation_the_first_frame(self, format_):
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        data = file(frames[0], format_, save_all=True, append_images=frames[1:], lossless=True)
        assert inspect(data) == Picture(8, 8, format_, None)
        self.check(decode(data), (255, 0, 0))

    @pytest.mark.parametrize("orientation", range(10))
    def test_exif_turns_only_where_it_is_asked_to_and_legal(self, orientation):
        data = with_orientation(orientation, "PNG")
        assert np.array_equal(decode(data), NOISE)
        seen = {
            2: NOISE[:, ::-1],
            3: NOISE[::-1, ::-1],
            4: NOISE[::-1],
            5: NOISE.transpose(1, 0, 2),
            6: np.rot90(NOISE, -1),
            7: np.rot90(NOISE[:, ::-1], -1),
            8: np.rot90(NOISE),
        }
        assert np.array_equal(decode(data, turned_by_exif=True), seen.get(orientation, NOISE))


@needs_real
def test_one_real_scene_in_four_states():
    def data(name):
        return (REAL / "odd_images" / f"google__african_elephants_{name}.jpg").read_bytes()

    assert inspect(data("bw")) == Picture(2048, 1536, "JPEG", None)
    assert inspect(data("cmyk")) == Picture(2048, 1536, "JPEG", None)
    assert inspect(data("with_exif_orientation")) == Picture(1536, 2048, "JPEG", 6)
    for read in (inspect, decode):
        with pytest.raises(PictureError, match="truncated"):
            read(data("truncated_file"))
    assert decode(data("with_exif_orientation"), turned_by_exif=True).size == (2048, 1536)
    grey = np.asarray(decode(data("bw")).convert("L"), float)
    inks = np.asarray(decode(data("cmyk")).convert("L"), float)
    assert np.corrcoef(grey.ravel(), inks.ravel())[0, 1] > 0.95, "an inverted one is near -1"


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_a_picture_is_turned_counter_clockwise(rotation_deg):
    assert np.array_equal(turned(picture(), rotation_deg), np.rot90(NOISE, rotation_deg // 90))


class TestPixelBox:
    @pytest.mark.parametrize(
        ("corners", "box"),
        [
            ((0, 1, 0, 1), (0, 0, 10, 20)),
            ((0.25, 0.75, 0.26, 0.74), (2, 5, 8, 15)),
            ((0.1 + 0.2, 0.7, 0.3, 0.1 * 7), (3, 6, 7, 14)),  # which are .30000000000000004 and .7000000000000001
            ((1 - 0.9, 0.5, 0, 1), (1, 0, 5, 20)),  # .09999999999999998
            ((0.3, 0.1 + 0.2 + 1e-9, 0, 1), (3, 0, 4, 20)),
            ((1 - 1e-9, 1, 0, 1e-12), (9, 0, 10, 1)),
            ((-1e-7, 1 + 1e-7, 0, 1), (0, 0, 10, 20)),
        ],
    )
    def test_it_holds_every_pixel_that_is_touched_and_no_other(self, corners, box):
        assert pixel_box(*corners, 10, 20) == box

    @pytest.mark.parametrize(
        ("corners", "reason"),
        [
            ((None, 1, 0, 1), "missing"),
            ((0, 1, math.nan, 1), "not a number"),
            ((0, math.inf, 0, 1), "out of the picture"),
            ((-0.1, 1, 0, 1), "out of the picture"),
            ((0, 1, 0, 1.01), "out of the picture"),
            ((0.6, 0.4, 0, 1), "inverted"),
            ((0, 1, 0.6, 0.4), "inverted"),
            ((0.5, 0.5, 0, 1), "no area"),
            ((0, 1, 1, 1), "no area"),
            ((1, 1 + 1e-7, 0, 1), "no area"),
        ],
    )
    def test_one_that_holds_nothing_is_refused_with_a_reason(self, corners, reason):
        with pytest.raises(BoxError, match=reason):
            pixel_box(*corners, 10, 20)

    @given(*[st.floats(0, 1)] * 4, st.integers(1, 5000), st.integers(1, 5000))
    def test_any_box_with_an_area_is_in_the_picture_and_around_its_corners(self, a, b, c, d, width, height):
        try:
            left, top, right, bottom = pixel_box(*sorted((a, b)), *sorted((c, d)), width, height)
        except BoxError:
            assert a == b or c == d
            return
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert left - 1e-5 <= min(a, b) * width < left + 1 + 1e-5
        assert right - 1 - 1e-5 <= max(a, b) * width <= right + 1e-5


class TestEncoded:
    def test_png_is_without_loss_and_jpeg_near(self):
        assert np.array_equal(Image.open(io.BytesIO(encoded(picture(), "PNG"))), NOISE)
        smooth = Image.linear_gradient("L").convert("RGB")
        read = Image.open(io.BytesIO(encoded(smooth, "JPEG", 90)))
        assert read.format == "JPEG"
        assert np.abs(np.asarray(read, int) - np.asarray(smooth, int)).max() < 5
        assert len(encoded(picture(), "JPEG", 40)) < len(encoded(picture(), "JPEG", 90))

    @pytest.mark.parametrize("format_", ["PNG", "JPEG"])
    def test_bytes_depend_on_pixels_alone(self, format_):
        named = file(picture(), "PNG", icc_profile=b"some profile", dpi=(72, 72))
        assert encoded(decode(named), format_) == encoded(picture(), format_)

    def test_a_side_that_jpeg_cannot_hold_is_refused(self):
        with pytest.raises(PictureError, match="65,500"):
            encoded(Image.new("RGB", (65_501, 1)), "JPEG")
        assert encoded(Image.new("RGB", (65_500, 1)), "JPEG")


class TestHash:
    def test_bits_that_differ_are_counted_whatever_the_sign(self):
        a = np.array([0, -1, -(2**63), 2**63 - 1, -1])
        b = np.array([0, 0, 0, -1, -2])
        assert hamming(a, b).tolist() == [0, 64, 1, 1, 1]
        assert hamming(a[:, None], b).shape == (5, 5)
        assert hamming(5, 6) == 2

    def test_a_plain_picture_has_one_hash_whatever_its_grey(self):
        assert len({perceptual_hash(Image.new("RGB", (37, 51), (grey,) * 3)) for grey in range(1, 256, 7)}) == 1

    @needs_real
    def test_near_duplicates_differ_in_few_bits_and_other_photos_in_many(self):
        files = sorted((REAL / "images").glob("*.jpg"), key=lambda path: path.stat().st_size)[:40]
        photos = [decode(path.read_bytes()) for path in files]
        hashes = np.array([perceptual_hash(photo) for photo in photos])
        assert hashes.dtype == np.int64
        assert (hashes < 0).any(), "the highest bit is the sign"
        for change in (
            lambda photo: photo.resize((photo.width * 2 // 3, photo.height * 2 // 3)),
            lambda photo: decode(encoded(photo, "JPEG", 40)),
            lambda photo: photo.point(lambda value: min(int(value * 1.08), 255)),
        ):
            changed = np.array([perceptual_hash(change(photo)) for photo in photos])
            assert hamming(hashes, changed).max() <= 6
        others = hamming(hashes[:, None], hashes)[~np.eye(len(hashes), dtype=bool)]
        assert np.median(others) > 24
        assert others.min() > 10
