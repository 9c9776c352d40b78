"""Pictures from files and from a server: what cannot be had is told, and what was fetched is not asked for again."""

import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import requests
from PIL import Image

from bigdata_assets.big_cats.logic import images
from bigdata_assets.big_cats.tables import SUBSETS

CAT, OTHER = "00e1234567890123", "12e4567890123456"


def jpeg(color: str = "orange", size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "JPEG")
    return out.getvalue()


class Publisher(http.server.BaseHTTPRequestHandler):
    """Answers with what `files` has, once with each of `refusals` before that."""

    files: dict[str, bytes]
    refusals: list[int]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        data = self.files.get(self.path)
        status = self.refusals.pop() if self.refusals else 404 if data is None else 200
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(data) if data and status == 200 else 0))
        self.end_headers()
        if data and status == 200:
            self.wfile.write(data[: len(data) if self.path != "/test/0000000000000000.jpg" else 5])

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[tuple[str, type[Publisher]]]:
    handler = type("Handler", (Publisher,), {"files": {}, "refusals": [], "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def located(place: images.Place, *ids: str) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pylist([{"subset": "test", "image_id": one} for one in ids])
    return [row for found in images.locate([batch], place) for row in found.to_pylist()]


def read(place: images.Place, *ids: str, repeated: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pylist(located(place, *ids), images.to_arrow(images.LOCATED))
    return [row for _, found in images.read([batch], place, repeated) for row in found.to_pylist()]


@pytest.mark.parametrize("below", ["images", "images/test", "test"])
def test_a_picture_is_found_as_people_unpack_it(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True)
    (tmp_path / below / f"{CAT}.jpg").write_bytes(jpeg())

    rows = read(images.Place(str(tmp_path)), CAT, OTHER)

    assert rows[0]["image"] == jpeg()
    assert (rows[0]["width_px"], rows[0]["height_px"], rows[0]["format"], rows[0]["reason"]) == (8, 6, "JPEG", None)
    assert rows[1]["reason"] == "absent: there is no such file"
    assert str(tmp_path / "images" / f"{OTHER}.jpg") in rows[1]["place"]


def test_what_is_broken_empty_too_large_or_a_stand_in_is_told(tmp_path: Path) -> None:
    files = {f"{number:016x}": data for number, data in enumerate([b"", jpeg()[:300], jpeg(size=(400, 400)), jpeg()])}
    (tmp_path / "images").mkdir()
    for name, data in files.items():
        (tmp_path / "images" / f"{name}.jpg").write_bytes(data)
    repeated = frozenset([images.hashlib.sha256(jpeg()).hexdigest()])

    rows = read(images.Place(str(tmp_path), max_pixels=100_000), *files, repeated=repeated)
    small = read(images.Place(str(tmp_path), max_bytes=100), f"{3:016x}")

    assert all(row["image"] is None for row in rows)
    assert [row["image_bytes"] for row in rows] == [0, 300, len(jpeg(size=(400, 400))), len(jpeg())]
    assert "zero bytes" in rows[0]["reason"]
    assert "more than 100,000 pixels" in rows[2]["reason"]
    assert rows[3]["reason"] == "a stand-in: other pictures have the same bytes"
    assert small[0]["reason"].startswith("oversized")


def test_a_name_that_is_no_name_reaches_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name of a picture"):
        located(images.Place(str(tmp_path)), "../../etc/passwd")


def test_a_picture_is_downloaded_once_and_404_is_no_picture(
    tmp_path: Path, publisher: tuple[str, type[Publisher]]
) -> None:
    url, server = publisher
    server.files = {f"/test/{CAT}.jpg": jpeg()}
    server.refusals = [503, 429]
    place = images.Place(str(tmp_path), url)

    rows = read(place, CAT, OTHER)

    assert rows[0]["image"] == jpeg()
    assert rows[1]["reason"] == "absent: the publisher answers 404"
    assert rows[1]["place"] == f"{url}/test/{OTHER}.jpg"
    assert server.asked == [f"/test/{CAT}.jpg"] * 3 + [f"/test/{OTHER}.jpg"]
    read(place, CAT)
    assert len(server.asked) == 4
    assert [path.name for path in (tmp_path / "images" / "test").iterdir()] == [f"{CAT}.jpg"]


def test_what_is_cut_off_on_the_way_is_no_picture_of_the_publishers(
    tmp_path: Path, publisher: tuple[str, type[Publisher]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, server = publisher
    server.files = {"/test/0000000000000000.jpg": jpeg()}
    monkeypatch.setattr(images, "BACKOFF_S", 0)
    with pytest.raises(requests.RequestException):
        located(images.Place(str(tmp_path), url), "0" * 16)
    assert len(server.asked) == images.ATTEMPTS
    assert not list((tmp_path / "images" / "test").iterdir())
    monkeypatch.setattr(images, "ATTEMPTS", 1)
    server.refusals = [500] * 10
    with pytest.raises(requests.RequestException):
        located(images.Place(str(tmp_path), url), CAT)


def test_a_download_that_is_too_large_ends_before_it_is_whole(
    tmp_path: Path, publisher: tuple[str, type[Publisher]]
) -> None:
    url, server = publisher
    server.files = {f"/test/{CAT}.jpg": bytes(1000)}

    assert located(images.Place(str(tmp_path), url, max_bytes=100), CAT)[0]["reason"].startswith("oversized")
    assert not list((tmp_path / "images" / "test").iterdir())


def test_a_batch_ends_with_its_bytes_and_with_its_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    ids = [f"{number:016x}" for number in range(6)]
    for one in ids:
        (tmp_path / "images" / f"{one}.jpg").write_bytes(jpeg())
    rows = [
        {"subset": subset, "image_id": one, "place": str(tmp_path / "images" / f"{one}.jpg"), "image_bytes": 1}
        for subset, its in zip(SUBSETS, (ids[:1], ids[1:3], ids[3:]), strict=True)
        for one in its
    ]
    batch = pa.RecordBatch.from_pylist(rows, images.to_arrow(images.LOCATED))

    monkeypatch.setattr(images.reading, "ROW_GROUP_BYTES", images.reading.ROW_BYTES + len(jpeg()) + 1)
    batches = list(images.read([batch], images.Place(str(tmp_path)), frozenset()))

    assert [(subset, found.num_rows) for subset, found in batches] == [
        ("test", 1),
        ("validation", 2),
        ("train", 2),
        ("train", 1),
    ]
