"""The branch on real Spark and Keras: the sample, real photos, and workers that are killed."""

import contextlib
import http.server
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import psutil
import pytest
from deltalake import DeltaTable

from bigdata_assets.big_cats.assets import ASSETS
from bigdata_assets.big_cats.definitions import BIG_CATS
from bigdata_assets.big_cats.partitions import IMAGE_SUBSETS
from bigdata_assets.big_cats.tables import BRANCH, CHIP_PREDICTIONS
from bigdata_assets.settings import Settings
from bigdata_assets_tests.conftest import Engines
from bigdata_assets_tests.integration.conftest import REAL_DATA, Project

CATS = ("/m/07dm6", "/m/096mb", "/m/0cd4d", "/m/0c29q", "/m/0449p", "/m/04g2r")
BY_SUBSET = [key for asset in ASSETS if asset.partitions_def == IMAGE_SUBSETS for key in asset.keys]
REPORTS = ("label_distribution", "chip_gallery", "prediction_report", "cat_features", "cat_head", "cat_head_report")
real = pytest.mark.skipif(not (REAL_DATA / BRANCH).is_dir(), reason=f"no folder with the official files at {REAL_DATA}")


def keys(*names: str) -> list[dg.AssetKey]:
    return [dg.AssetKey([BRANCH, name]) for name in names]


def rows(project: Project, name: str, *columns: str) -> list[dict[str, Any]]:
    """A table's rows; without their bytes unless these are asked for."""
    stored = DeltaTable(f"{project.settings.storage}/{BRANCH}/{name}").to_pyarrow_dataset()
    wanted = list(columns) or [name for name in stored.schema.names if name not in ("image", "chip", "features")]
    return stored.to_table(wanted).to_pylist()


def numbers(project: Project, report: str) -> dict[str, float]:
    """Of the newest report."""
    files = Path(project.settings.storage, "reports", BRANCH, report).rglob("*.json")
    return json.loads(max(files, key=lambda path: path.stat().st_mtime).read_text())["numbers"]


def made(project: Project, subsets: Sequence[str], networks: Sequence[str], **described: int) -> Project:
    """Everything is materialised."""
    project.execute(keys("class_descriptions"), ())
    project.execute(BY_SUBSET, (subsets[0], subsets[-1]))
    for network in networks:
        project.execute(keys("chip_predictions"), (network,))
    config = {"ops": {"big_cats__cat_features": {"config": {"network": "ResNet50", **described}}}}
    project.execute(keys(*REPORTS), (), config=config)
    return project


@pytest.fixture(scope="module")
def sample(_engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Project:
    _engines.ensure_up()
    project = Project(tmp_path_factory.mktemp("cats"), _engines.settings, branches=[BIG_CATS])
    return made(project, ("test", "train"), ("MobileNet", "MobileNetV2"))


def test_every_row_box_and_picture_of_the_sample_is_somewhere(sample: Project) -> None:
    folder = next(Path(sample.settings.services_dir.parent, "sources").glob(f"sample-*/{BRANCH}"))
    for files, tables in {
        "*-annotations-human-imagelabels-boxable.csv": ("image_labels", "quarantined_labels"),
        "*-annotations-bbox.csv": ("boxes", "quarantined_box_rows"),
        "*-with-rotation.csv": ("image_sources", "quarantined_sources"),
    }.items():
        n_lines = sum(len(path.read_text().splitlines()) - 1 for path in folder.glob(files))
        assert sum(len(rows(sample, table)) for table in tables) == n_lines, files
    ids = [row["image_id"] for row in rows(sample, "cat_image_ids")]
    kept, refused = ([row["image_id"] for row in rows(sample, name)] for name in ("images", "quarantined_images"))
    assert sorted(ids) == sorted(kept + refused)
    reasons = Counter(row["reason"].partition(":")[0] for row in rows(sample, "quarantined_images"))
    assert reasons["absent"] == 1
    assert reasons["a stand-in"] == 2
    assert len(refused) == 4
    chips = rows(sample, "cat_chips")
    cats = [row for row in rows(sample, "boxes") if row["label"] in CATS and row["image_id"] in kept]
    places = {tuple(row[name] for name in ("image_id", "x_min", "x_max", "y_min", "y_max")) for row in cats}
    assert sum(not chip["is_whole_image"] for chip in chips) + len(rows(sample, "quarantined_boxes")) == len(places)
    assert {chip["image_id"] for chip in chips} | {row["image_id"] for row in rows(sample, "quarantined_boxes")} == {
        *kept
    }


def test_networks_without_weights_name_every_chip(sample: Project) -> None:
    predictions = rows(sample, "chip_predictions")

    n_chips = len(rows(sample, "cat_chips"))
    assert Counter(row["network"] for row in predictions) == dict.fromkeys(("MobileNet", "MobileNetV2"), n_chips)
    assert {row["model_version"] for row in predictions} == {"MobileNet-none", "MobileNetV2-none"}
    assert all(len(row["top_indices"]) == len(row["top_names"]) == 5 for row in predictions)


def test_the_head_learns_the_sample_and_knows_what_is_none_of_them(sample: Project) -> None:
    found = numbers(sample, "cat_head_report")

    assert found["accuracy"] > found["accuracy, majority"] + 0.1
    assert found["negatives rejected"] > 0.5


def test_made_again_chips_are_the_same(sample: Project) -> None:
    wanted = ("chip_id", "chip", "labels", "left_px", "rotation_deg")
    before = sorted(rows(sample, "cat_chips", *wanted), key=lambda row: row["chip_id"])

    sample.execute(keys("cat_chips", "quarantined_boxes"), ("test", "train"))

    assert sorted(rows(sample, "cat_chips", *wanted), key=lambda row: row["chip_id"]) == before


@pytest.fixture(scope="module")
def photos(_engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Project:
    _engines.ensure_up()
    folder = tmp_path_factory.mktemp("photos")
    project = Project(folder, _engines.settings, str(REAL_DATA), branches=[BIG_CATS])
    return made(project, ("test", "validation"), ("MobileNetV2", "ResNet50"), views=1)


@real
def test_networks_name_real_photos(photos: Project) -> None:
    found = numbers(photos, "prediction_report")

    assert found["ResNet50, top-1 accuracy"] >= 0.88
    assert found["MobileNetV2, top-1 accuracy"] >= 0.80
    assert found["majority, same chips as ResNet50"] < 0.5


@real
def test_the_head_is_no_worse_than_the_network_it_stands_on(photos: Project) -> None:
    found = numbers(photos, "cat_head_report")

    assert found["accuracy"] >= numbers(photos, "prediction_report")["ResNet50, top-1 accuracy"]


@real
def test_only_verified_photos_are_read(photos: Project) -> None:
    verified = {row["image_id"] for row in rows(photos, "image_labels") if row["label"] in CATS and row["confidence"]}

    assert {row["image_id"] for row in rows(photos, "images")} <= verified
    assert not {row["image_id"] for row in rows(photos, "negative_images")} & verified
    assert len(rows(photos, "negative_images")) > 30


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers with the pictures of a folder, a few a second."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        time.sleep(0.05)
        name = self.path.rpartition("/")[2]
        known = {path.name: path for path in self.folder.iterdir()}
        data = known[name].read_bytes() if name in known else b""
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def publisher(sample: Project) -> Iterator[tuple[str, type[Slow]]]:
    folder = next(Path(sample.settings.services_dir.parent, "sources").glob(f"sample-*/{BRANCH}/images"))
    handler = type("Handler", (Slow,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def kill_a_worker(engines: Engines, at_work: Callable[[psutil.Process], bool]) -> list[int]:
    """Kill -9 the first of Spark's Python workers that is seen at work; its process id comes into the list."""
    killed: list[int] = []
    server = psutil.Process(engines.pid("spark-connect"))

    def kill() -> None:
        while not killed:
            for one in server.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "pyspark.worker" in " ".join(one.cmdline()) and not one.children() and at_work(one):
                        one.kill()
                        killed.append(one.pid)
                        return

    threading.Thread(target=kill, daemon=True).start()
    return killed


def test_a_worker_killed_in_mid_download_costs_no_picture(
    sample: Project, publisher: tuple[str, type[Slow]], tmp_path: Path, engines: Engines
) -> None:
    url, server = publisher
    project = official(sample, tmp_path, engines.settings, url)

    def downloads(worker: psutil.Process) -> bool:
        ports = {connection.raddr.port for connection in worker.net_connections("tcp") if connection.raddr}
        return len(server.asked) >= 10 and urlsplit(url).port in ports

    killed = kill_a_worker(engines, downloads)
    made = keys("images", "quarantined_images")

    assert not project.execute(made, ("test", "train"), raise_on_error=False).success
    assert killed
    asked_before = len(server.asked)
    assert project.execute(made, ("test", "train")).success

    wanted = ("image_id", "sha256")
    assert sorted(map(str, rows(project, "images", *wanted))) == sorted(map(str, rows(sample, "images", *wanted)))
    n_ids = len(rows(project, "cat_image_ids"))
    absent = [row for row in rows(project, "quarantined_images") if row["reason"].startswith("absent")]
    assert len(absent) == 1
    assert len(set(server.asked)) == n_ids
    # What the killed one, and those that were ended with it, had under way, and what is not there: no more.
    assert 10 <= asked_before < n_ids
    assert len(server.asked) <= n_ids + 4


def official(sample: Project, folder: Path, server: Settings, url: str) -> Project:
    """A project with the sample's labels that downloads its pictures."""
    settings = server.model_copy(update={"big_cats_images_url": url, "services_dir": folder / "own" / "services"})
    project = Project(folder, settings, "official", branches=[BIG_CATS])
    target = Path(project.settings.storage, BRANCH)
    for name in ("cat_image_ids", "image_labels", "class_descriptions"):
        shutil.copytree(Path(sample.settings.storage, BRANCH, name), target / name)
    return project


def test_a_worker_killed_in_mid_prediction_costs_no_chip(sample: Project, engines: Engines) -> None:
    told = [column.name for column in CHIP_PREDICTIONS.columns if column.name != "seconds"]
    before = sorted(map(str, rows(sample, "chip_predictions", *told)))
    began: dict[int, float] = {}

    def predicts(worker: psutil.Process) -> bool:
        spent_s = sum(worker.cpu_times()[:2])
        return spent_s - began.setdefault(worker.pid, spent_s) > 1

    killed = kill_a_worker(engines, predicts)

    assert not sample.execute(keys("chip_predictions"), ("MobileNet",), raise_on_error=False).success
    assert killed
    assert sorted(map(str, rows(sample, "chip_predictions", *told))) == before, "as if it had not been begun"
    assert sample.execute(keys("chip_predictions"), ("MobileNet",)).success
    assert sorted(map(str, rows(sample, "chip_predictions", *told))) == before
