"""What a new user sees: `make run`'s command, the UI in Chromium, a sensor that turns a new file green, the mart that
follows it, an alert of a failed run, Kafka batches that turn green as they come, Ctrl-C."""

import json
import os
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from deltalake import DeltaTable
from playwright.sync_api import Page, sync_playwright

from bigdata_assets.kafka_batches import parse
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.services.supervisor import free_port, read_state
from bigdata_assets.settings import Settings
from bigdata_assets_tests.conftest import alive, kill_9, wait_for
from bigdata_assets_tests.integration.conftest import Project

pytestmark = [pytest.mark.integration, pytest.mark.browser]

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
CLASSIFIER = ["malicious_urls", "url_classifier"]
LOCATION = {"repositoryLocationName": "bigdata_assets", "repositoryName": "__repository__"}


class Ui:
    """The running stack: GraphQL and pages."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.settings = settings = project.settings
        self.url = f"http://127.0.0.1:{settings.ui_port}"

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]  # type: ignore[no-any-return]

    def answers(self) -> bool:
        try:
            found = self.graphql("{ assetNodes { id } }")
        except (OSError, KeyError, TypeError, ValueError):
            return False
        return bool(found and found["assetNodes"])

    def materialized_partitions(self, asset: str, branch: str = "malicious_urls") -> set[str]:
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            assetMaterializations { partition } } } }"""
        node = self.graphql(query, key={"path": [branch, asset]})["assetNodeOrError"]
        return {event["partition"] for event in node["assetMaterializations"]}

    def partitions(self, asset: str, branch: str) -> set[str]:
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            partitionKeys } } }"""
        return set(self.graphql(query, key={"path": [branch, asset]})["assetNodeOrError"]["partitionKeys"])

    def start_sensor(self, name: str) -> None:
        mutation = """mutation ($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename
            ... on PythonError { message } } }"""
        started = self.graphql(mutation, s={**LOCATION, "sensorName": name})["startSensor"]
        assert started["__typename"] == "Sensor", started


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("Oberfläche und mehr")


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Taker)
        self.url = f"http://127.0.0.1:{self.server_port}/secret-path"


class _Taker(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ui(spark_server: Settings, trained_folder: Path, webhook: Webhook) -> Iterator[Ui]:
    """The whole stack by the command that `make run` calls, on the sample, its engine shared with the session's."""
    own = {
        "ui_port": free_port(),
        "reports_url": f"http://127.0.0.1:{free_port()}",
        "alert_webhook_url": webhook.url,
        "crimes_topic": f"crimes.{free_port()}",
        "batch_rows": 200,
        "batch_seconds": 5.0,
    }
    project = Project(trained_folder, spark_server.model_copy(update=own))
    shutil.rmtree(project.landing)  # the sample's own files come only where there is no landing folder yet
    log = (trained_folder / "run.log").open("w")
    run = project.cli("run", output=log)
    ui = Ui(project)
    try:
        wait_for(lambda: ui.answers() or run.poll() is not None, 1_500, "the UI answers")
        assert run.poll() is None, Path(log.name).read_text()
        wait_for(lambda: "Dagster UI:" in Path(log.name).read_text(), 120, "the address is printed")
        yield ui
        family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        os.kill(run.pid, signal.SIGINT)
        assert run.wait(60) == 0, Path(log.name).read_text()
        assert not alive(family), "Ctrl-C left processes"
    finally:
        run.kill()
        run.wait()
        log.close()


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS.split())
        yield browser.new_page(viewport={"width": 1500, "height": 1000})
        browser.close()


def pictures_fit(page: Page, reports_url: str) -> None:
    """No picture of a report is cut, in a window as wide as that of a small laptop."""
    size = page.viewport_size
    page.set_viewport_size({"width": 1440, "height": 900})
    pictures = page.locator(f"img[src^='{reports_url}']")
    wait_for(lambda: pictures.first.evaluate("image => image.complete && image.naturalWidth > 300"), 30, "a picture")
    hidden = """images => images.map(image => {
        let right = window.innerWidth
        for (let box = image.parentElement; box; box = box.parentElement)
            if (getComputedStyle(box).overflowX != 'visible') right = Math.min(right, box.getBoundingClientRect().right)
        return image.getBoundingClientRect().right - right
    })"""
    wait_for(lambda: max(pictures.evaluate_all(hidden)) <= 0, 10, "no picture is cut")
    if size:
        page.set_viewport_size(size)


def test_a_new_user_sees_it_work(ui: Ui, page: Page, trained_folder: Path, webhook: Webhook) -> None:
    # The first materialisation made everything.
    nodes = ui.graphql("{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }")["assetNodes"]
    assert len(nodes) >= 10
    assert [node["assetKey"]["path"] for node in nodes if not node["assetMaterializations"]] == []

    # The graph, without a dialog over it.
    page.goto(f"{ui.url}/asset-groups")
    page.get_by_text("malicious_urls").first.wait_for(timeout=60_000)
    page.screenshot(path=trained_folder / "graph.png")

    # The report's pictures are seen without a click, served by the reports server.
    page.goto(f"{ui.url}/assets/malicious_urls/classifier_report")
    picture = page.locator(f"img[src^='{ui.settings.reports_url}']").first
    picture.wait_for(timeout=60_000)
    wait_for(lambda: picture.evaluate("image => image.naturalWidth") > 300, 30, "the picture is loaded")
    pictures_fit(page, ui.settings.reports_url)
    page.screenshot(path=trained_folder / "report.png")

    # The catalogue has the declared columns and the row counts.
    page.goto(f"{ui.url}/assets/malicious_urls/url_batches")
    page.get_by_text("Domain below the public suffix").first.wait_for(timeout=60_000)
    page.get_by_text("400").first.wait_for(timeout=60_000)

    # A sensor, a new file: its partition turns green by itself.
    ui.start_sensor("new_url_files")
    landing = Path(ui.settings.storage) / "landing" / "urls"
    (landing / "broken name,.csv").write_text("url\na.example.org\n")
    (landing / "new_delivery.csv").write_text("url\nhttp://fresh.seen-nowhere.test/login\n")
    wait_for(lambda: "new_delivery.csv" in ui.materialized_partitions("predictions"), 240, "the new file is scored")

    # What the first materialisation scored is not scored again.
    runs = ui.graphql("{ runsOrError { ... on Runs { results { jobName tags { key value } } } } }")["runsOrError"][
        "results"
    ]
    asked_for = [
        tag["value"]
        for run in runs
        if run["jobName"] == "score_landed_file"
        for tag in run["tags"]
        if tag["key"] == "dagster/partition"
    ]
    assert asked_for == ["new_delivery.csv"]

    # The mart follows by its automation condition, without anything being switched on.
    def domains_in_mart() -> set[str]:
        return set(
            DeltaTable(f"{ui.settings.storage}/malicious_urls/prediction_mart")
            .to_pyarrow_table()["registered_domain"]
            .to_pylist()
        )

    wait_for(lambda: "seen-nowhere.test" in domains_in_mart(), 240, "the mart has the new file's domain")

    # A run that fails is told to the webhook.
    assert webhook.posted == []
    launch = """mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"""
    selector = {
        **LOCATION,
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": CLASSIFIER}],
        "assetCheckSelection": [],
    }
    config = {"ops": {"__".join(CLASSIFIER): {"config": {"family": "no such family"}}}}
    launched = ui.graphql(launch, p={"selector": selector, "runConfigData": config})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess"
    wait_for(lambda: webhook.posted, 240, "the alert")
    assert webhook.posted[0]["assets"] == ["/".join(CLASSIFIER)]
    assert "there is no family 'no such family'" in webhook.posted[0]["text"]

    # The stream: a sensor, a producer; partitions appear and turn green, also when the daemon dies meanwhile.
    before = ui.materialized_partitions("batch_metrics", "crimes")
    assert {parse(key).end for key in before} == {200, 400, 600}
    ui.start_sensor("new_crime_batches")
    command = [
        "produce",
        "crimes",
        "--month",
        "2016-01",
        "--resume",
        "--rows",
        "150",
        "--every",
        "2s",
        "--limit",
        "1200",
    ]
    with (trained_folder / "produce.log").open("w") as log:
        producing = ui.project.cli(*command, output=log)
        assert producing.wait(180) == 0, (trained_folder / "produce.log").read_text()
    kafka = KafkaResource(servers=ui.settings.kafka_servers)
    assert kafka.offsets(ui.settings.crimes_topic)[0].end == 1_200
    wait_for(lambda: ui.partitions("batch_metrics", "crimes") > before, 120, "a new batch is a partition")
    daemon = read_state(ui.settings.services_dir, "stack")["processes"]["daemon"]["pid"]
    kill_9(daemon)

    def green() -> bool:
        keys = ui.partitions("batch_metrics", "crimes")
        return max(parse(key).end for key in keys) == 1_200 and keys == ui.materialized_partitions(
            "batch_metrics", "crimes"
        )

    wait_for(green, 420, "all batches are green")
    batches = sorted(map(parse, ui.partitions("batch_metrics", "crimes")), key=lambda batch: batch.first)
    assert [offset for batch in batches for offset in range(batch.first, batch.end)] == list(range(1_200))
    scores = DeltaTable(f"{ui.settings.storage}/crimes/arrest_scores").to_pyarrow_table(
        columns=["kafka_offset", "model"]
    )
    assert scores.num_rows == len(set(zip(*scores.to_pydict().values(), strict=True))) == 1_200 * 7

    # The report follows by its automation condition.
    def batches_in_report() -> int:
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            assetMaterializations(limit: 1) { metadataEntries { label
            ... on IntMetadataEntry { intValue } } } } } }"""
        node = ui.graphql(query, key={"path": ["crimes", "stream_report"]})["assetNodeOrError"]
        (newest,) = node["assetMaterializations"]
        return next(int(entry["intValue"]) for entry in newest["metadataEntries"] if entry["label"] == "batches")

    wait_for(lambda: batches_in_report() == len(batches), 240, "the report has all batches")
    page.goto(f"{ui.url}/assets/crimes/stream_report")
    page.locator(f"img[src^='{ui.settings.reports_url}']").first.wait_for(timeout=60_000)
    pictures_fit(page, ui.settings.reports_url)
    page.screenshot(path=trained_folder / "stream.png")

    # A code server that is killed comes back, and the UI with it.
    state = read_state(ui.settings.services_dir, "stack")
    kill_9(state["processes"]["code-server"]["pid"])
    statuses = """{ workspaceOrError { ... on Workspace { locationEntries {
        locationOrLoadError { __typename } } } } }"""

    def loaded() -> bool:
        now = read_state(ui.settings.services_dir, "stack")["processes"]["code-server"]
        if now["pid"] == state["processes"]["code-server"]["pid"] or now["state"] != "ready":
            return False
        (entry,) = ui.graphql(statuses)["workspaceOrError"]["locationEntries"]
        return bool(entry["locationOrLoadError"]["__typename"] == "RepositoryLocation")

    wait_for(loaded, 120, "the code location is back")
    assert ui.answers()
