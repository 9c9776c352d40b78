"""Chips on real Spark, from stored tables to stored tables."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bigdata_assets.big_cats.logic.chips import CORNERS, ChipSettings, stage_chips, with_boxes
from bigdata_assets.big_cats.tables import (
    BOXES,
    CAT_CHIPS,
    CAT_IMAGE_IDS,
    FLAGS,
    IMAGE_SOURCES,
    IMAGES,
    QUARANTINED_BOXES,
)
from bigdata_assets.io_managers.delta.io_manager import DeltaIOManager
from bigdata_assets.io_managers.staging import FILES, ROW_GROUP_BYTES, StagedFiles
from bigdata_assets.resources.spark import SparkResource
from bigdata_assets.settings import Settings
from bigdata_assets.tables import Table

TIGER, LION, BEAR = "/m/07dm6", "/m/096mb", "/m/01dws"
SUBSETS = ["test", "validation"]
STORED = [IMAGES, BOXES, CAT_IMAGE_IDS, IMAGE_SOURCES]


@pytest.fixture
def manager(spark_server: Settings, tmp_path: Path) -> Iterator[DeltaIOManager]:
    resource = SparkResource(remote=spark_server.spark_remote)
    yield DeltaIOManager(str(tmp_path / "store é"), resource, [*STORED, CAT_CHIPS, QUARANTINED_BOXES])
    resource.stop()


def rows(table: Table, *its: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(table.column_names) | one for one in its], table.arrow_schema)


def png(seed: int, side_px: int) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), np.uint8)
    Image.fromarray(noise).save(out, "PNG", compress_level=1)
    return out.getvalue()


def image(subset: str, image_id: str, data: bytes) -> dict[str, Any]:
    told = {"image": data, "image_bytes": len(data), "width_px": 1, "height_px": 1, "format": "PNG", "sha256": "x"}
    return {"subset": subset, "image_id": image_id} | told


def box(subset: str, image_id: str, label: str, *corners: float, **flags: bool) -> dict[str, Any]:
    told = {"subset": subset, "image_id": image_id, "source": "xclick", "label": label, "confidence": 1.0}
    return told | dict(zip(CORNERS, corners, strict=True)) | dict.fromkeys(FLAGS) | flags


def fill(manager: DeltaIOManager) -> None:
    """Pictures a to d, and one that is no longer among the ids."""
    small = png(1, 20)
    pictures = [("test", "a"), ("test", "b"), ("validation", "c"), ("validation", "d"), ("test", "gone")]
    manager.write(IMAGES, rows(IMAGES, *(image(*of, small) for of in pictures)), SUBSETS, "run")
    boxes = [
        box("test", "a", TIGER, 0, 0.5, 0, 1, is_occluded=True),
        box("test", "a", LION, 0.5, 1, 0, 1),
        box("test", "a", BEAR, 0, 1, 0, 1),
        box("validation", "c", TIGER, 0.5, 0.5, 0, 1),
        box("validation", "a", LION, 0, 1, 0, 1),  # a picture of the same name, elsewhere
    ]
    manager.write(BOXES, rows(BOXES, *boxes), SUBSETS, "run")
    ids = [{"subset": s, "image_id": i, "classes": [TIGER], "labels": [TIGER]} for s, i in pictures[:-1]]
    manager.write(CAT_IMAGE_IDS, rows(CAT_IMAGE_IDS, *ids), SUBSETS, "run")
    sources = [{"subset": "test", "image_id": "a", "rotation_deg": 90}, {"subset": "test", "image_id": "b"}]
    manager.write(IMAGE_SOURCES, rows(IMAGE_SOURCES, *sources), SUBSETS, "run")


def make(manager: DeltaIOManager) -> None:
    frames = [manager.read(table, SUBSETS) for table in STORED]
    to = manager.staging(CAT_CHIPS), manager.staging(QUARANTINED_BOXES)
    chips, refused = stage_chips(*frames, [TIGER, LION], ChipSettings(), *to)
    manager.write(CAT_CHIPS, chips, SUBSETS, "run")
    manager.write(QUARANTINED_BOXES, refused, SUBSETS, "run")


def stored(manager: DeltaIOManager, table: Table, *keys: str) -> list[dict[str, Any]]:
    return sorted(manager.stored(table).to_pyarrow_table().to_pylist(), key=lambda row: [str(row[key]) for key in keys])


def test_stored_pictures_and_boxes_become_the_same_stored_chips_again_and_again(manager: DeltaIOManager) -> None:
    fill(manager)
    make(manager)
    chips = stored(manager, CAT_CHIPS, "image_id", "x_min")
    names = ("subset", "image_id", "labels", "is_whole_image", "x_min", "is_occluded", "rotation_deg", "width_px")
    assert [tuple(chip[name] for name in names) for chip in chips] == [
        ("test", "a", [TIGER], False, 0, True, 90, 20),
        ("test", "a", [LION], False, 0.5, None, 90, 20),
        ("test", "b", [TIGER], True, None, None, None, 20),
        ("validation", "d", [TIGER], True, None, None, None, 20),
    ]
    (refused,) = stored(manager, QUARANTINED_BOXES, "image_id")
    assert (refused["subset"], refused["image_id"], refused["label"], refused["reason"]) == (
        "validation",
        "c",
        TIGER,
        "no area",
    )
    make(manager)
    assert stored(manager, CAT_CHIPS, "image_id", "x_min") == chips
    manager.compact(CAT_CHIPS)
    assert stored(manager, CAT_CHIPS, "image_id", "x_min") == chips


def test_the_bytes_of_pictures_stay_where_they_are(manager: DeltaIOManager, capsys: pytest.CaptureFixture[str]) -> None:
    fill(manager)
    with_boxes(*[manager.read(table, SUBSETS) for table in STORED], [TIGER]).explain()
    plan = capsys.readouterr().out
    at = [(len(line) - len(line.lstrip(" :+-")), line) for line in plan.splitlines()]
    place = next(number for number, (_, line) in enumerate(at) if "Scan" in line and re.search(r"\bimage#", line))
    depth, above = at[place][0], []
    for indent, line in reversed(at[:place]):
        if indent < depth:
            depth = indent
            above.append(line)
    assert any("BroadcastHashJoin" in line for line in above)
    assert not any("Exchange" in line for line in above)


def test_a_worker_is_handed_bounded_bytes(manager: DeltaIOManager) -> None:
    data = png(2, 1_000)
    pictures = rows(IMAGES, *(image("test", f"{number:03}", data) for number in range(40)))
    manager.write(IMAGES, pictures, SUBSETS, "run")

    def sizes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from (pa.record_batch({"bytes": [batch.nbytes]}) for batch in batches)

    found = manager.read(IMAGES, SUBSETS).mapInArrow(sizes, "bytes long").toPandas()["bytes"]
    assert found.sum() > 40 * len(data)
    assert found.max() < 32 * 2**20 + 2 * len(data)


def test_row_groups_are_bounded_when_chips_are_written_and_when_files_are_joined(manager: DeltaIOManager) -> None:
    pictures = [image("test", f"{number:03}", png(number, 1_000)) for number in range(18)]
    n_bytes = pictures[0]["image_bytes"]
    staging = manager.staging(IMAGES)
    parts = [rows(IMAGES, *pictures[number::3]).to_batches() for number in range(3)]
    files = [file for part in parts for file in staging.write(part, "test")]
    manager.write(IMAGES, StagedFiles(pa.Table.from_pylist(files, FILES)), ["test"], "run")
    assert manager.compact(IMAGES)["files joined"] == 3
    (joined,) = footers(manager, IMAGES)
    assert sizes_of(joined) == pytest.approx([5 * n_bytes] * 3 + [3 * n_bytes], rel=0.01)
    columns = [joined.row_group(0).column(place) for place in range(joined.num_columns)]
    assert {column.path_in_schema: column.is_stats_set for column in columns}["image"] is False
    ids = [
        {"subset": "test", "image_id": picture["image_id"], "classes": [TIGER], "labels": [TIGER]}
        for picture in pictures
    ]
    manager.write(CAT_IMAGE_IDS, rows(CAT_IMAGE_IDS, *ids), ["test"], "run")
    for table in (BOXES, IMAGE_SOURCES):
        manager.create(table)
    make(manager)
    sizes = [size for footer in footers(manager, CAT_CHIPS) for size in sizes_of(footer)]
    assert sum(sizes) > 18 * n_bytes
    assert max(sizes) < ROW_GROUP_BYTES + 2 * n_bytes


def footers(manager: DeltaIOManager, table: Table) -> list[Any]:
    names = pa.table(manager.stored(table).get_add_actions())["path"].to_pylist()
    return [pq.read_metadata(Path(manager.location(table)) / name) for name in names]


def sizes_of(footer: Any) -> list[int]:
    return [footer.row_group(number).total_byte_size for number in range(footer.num_row_groups)]
