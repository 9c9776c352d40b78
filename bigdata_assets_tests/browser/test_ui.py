"""What a new user sees: `make run`'s command, the UI in Chromium, a sensor that turns a new file green, the mart that
follows it, an alert of a failed run, Kafka batches that turn green as they come, Ctrl-C. Sensors tick as they do.
"""

import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from playwright.sync_api import Page, sync_playwright

from bigdata_assets.flow_sensors.tables import MODELS
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.services.supervisor import free_port, read_state
from bigdata_assets.settings import Settings
from bigdata_assets.streams.batches import parse
from bigdata_assets_tests.conftest import Engines, kill_9, wait_for
from bigdata_assets_tests.integration.conftest import Project
from bigdata_assets_tests.integration.test_nothing_invented import topics_of
from bigdata_assets_tests.stack import Stack, Ui
from bigdata_assets_tests.traces import predictions_are_traced_to_their_bytes

pytestmark = [pytest.mark.integration, pytest.mark.browser]

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
CLASSIFIER = ["malicious_urls", "url_classifier"]


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


@pytest.fixture(scope="module")
def project(settings: Settings, trained_folder: Path) -> Project:
    """A clone's own folder, as a new user has it: nothing in it but the samples, which other tests have too."""
    (trained_folder / "sources").symlink_to(settings.services_dir.parent / "sources")
    own = {
        "services_dir": trained_folder / "services",
        "spark_remote": f"sc://localhost:{free_port()}",
        "kafka_servers": f"localhost:{free_port()}",
        "cassandra_points": f"localhost:{free_port()}",
        "ui_port": free_port(),
        "reports_url": f"http://127.0.0.1:{free_port()}",
        "batch_rows": 200,
        "batch_seconds": 5.0,
    }
    project = Project(trained_folder, settings.model_copy(update=own))
    shutil.rmtree(project.landing)  # the sample's own files come only where there is no landing folder yet
    return project


@pytest.fixture
def stack(project: Project, trained_folder: Path, webhook: Webhook, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The whole stack, engines of its own among it, on the sample."""
    project.settings = project.settings.model_copy(update={"alert_webhook_url": webhook.url})
    stack = Stack(project, trained_folder / f"{request.node.name}.log")
    try:
        yield stack
    finally:
        stack.kill()


@pytest.fixture
def ui(stack: Stack, project: Project) -> Ui:
    """The UI, as soon as it answers."""
    ui = Ui(project)
    stack.wait_for(ui.answers, 300, "the UI answers")
    stack.wait_for(lambda: f"Dagster UI: {ui.url}" in stack.printed(), 30, "the address is printed")
    return ui


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS.split())
        yield browser.new_page(viewport={"width": 1440, "height": 900})
        browser.close()


def pictures_fit(page: Page, reports_url: str) -> None:
    """No picture of a report is cut, in a window as wide as that of a small laptop."""
    pictures = page.locator(f"img[src^='{reports_url}']")
    wait_for(lambda: pictures.first.evaluate("image => image.complete && image.naturalWidth > 300"), 30, "a picture")
    hidden = """images => images.map(image => {
        let right = window.innerWidth
        for (let box = image.parentElement; box; box = box.parentElement)
            if (getComputedStyle(box).overflowX != 'visible') right = Math.min(right, box.getBoundingClientRect().right)
        return image.getBoundingClientRect().right - right
    })"""
    wait_for(lambda: max(pictures.evaluate_all(hidden)) <= 0, 10, "no picture is cut")


def test_ctrl_c_in_the_first_materialisation_leaves_nothing_behind(stack: Stack, ui: Ui) -> None:
    assert "everything is materialised" not in stack.printed()
    stack.wait_for(lambda: ui.run_statuses().get("STARTED"), 300, "a run that one sees in the UI")
    assert ui.sensor_status("refresh") == "STOPPED", "what it would ask for is made by the first materialisation"
    stack.wait_for(lambda: " s  labelled_urls\n" in stack.printed(), 300, "a line of a step with its time")
    stack.stop()
    with ui.project.instance() as instance:
        statuses = Counter(run.status.value for run in instance.get_runs())
    assert statuses.keys() <= {"SUCCESS", "CANCELED"}, "a failure would be told to the webhook at the next start"
    assert statuses["CANCELED"] == 1


def test_a_new_user_sees_it_work(stack: Stack, ui: Ui, page: Page, trained_folder: Path, webhook: Webhook) -> None:
    # The first materialisation goes on with what is missing, and makes everything.
    before = ui.run_of("labelled_urls")
    stack.wait_for(lambda: re.search("everything is mat|could not be mat", stack.printed()), 1_500, "an end of it")
    assert "everything is materialised" in stack.printed(), stack.printed()
    assert ui.run_of("labelled_urls") == before, "what was there was not made again"
    assert "Epoch" not in stack.printed()
    assert ui.sensor_status("refresh") == "RUNNING"
    nodes = ui.graphql("{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }")["assetNodes"]
    assert len(nodes) >= 10
    assert [node["assetKey"]["path"] for node in nodes if not node["assetMaterializations"]] == []
    assert ui.partitions_that_are_not_green() == {}

    # It can be reached from this machine alone, and by its own names.
    assert stack.listens_on() <= {"127.0.0.1", "::1"}
    assert [ui.status(url, Host="rebound.example") for url in (ui.url, ui.settings.reports_url)] == [403, 403]
    assert ui.status(f"{ui.url}/graphql?query={{version}}", Accept="*/*") == 405, "a picture in any page asks so"
    assert ui.status(ui.url) == 200

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
    assert ui.number("url_batches", "dagster/partition_row_count") == 400

    # What the sample shows of the stream: enough batches for a curve over them.
    batches = sorted(map(parse, ui.materialized_partitions("batch_metrics", "crimes")), key=lambda batch: batch.first)
    assert [(batch.first, batch.end) for batch in batches] == [(n, n + 100) for n in range(0, 1_200, 100)]

    predictions_are_traced_to_their_bytes(ui.settings)

    # A sensor, a new file: its partition turns green by itself. Beside it, a run that fails, and a stream.
    assert webhook.posted == []
    ui.start_sensor("new_url_files")
    landing = Path(ui.settings.storage) / "landing" / "urls"
    (landing / "broken name,.csv").write_text("url\na.example.org\n")
    (landing / "new_delivery.csv").write_text("url\nhttp://fresh.seen-nowhere.test/login\n")
    ui.launch(CLASSIFIER, config={"family": "no such family"})
    ui.start_sensor("new_crime_batches")
    produce = "produce crimes --month 2016-01 --resume --rows 100 --every 1s --limit 1500".split()
    with (trained_folder / "produce.log").open("w") as log:
        assert ui.project.cli(*produce, output=log).wait(180) == 0, (trained_folder / "produce.log").read_text()
    assert KafkaResource(servers=ui.settings.kafka_servers).offsets(ui.settings.topic("crimes"))[0].end == 1_500
    keys = {batch.key for batch in batches}
    wait_for(lambda: ui.partitions("batch_metrics", "crimes") > keys, 120, "a new batch is a partition")
    kill_9(read_state(ui.settings.services_dir, "stack")["processes"]["daemon"]["pid"])

    wait_for(lambda: "new_delivery.csv" in ui.materialized_partitions("predictions"), 300, "the new file is scored")
    # What the first materialisation scored is not scored again.
    assert ui.partitions_asked_for("score_landed_file") == ["new_delivery.csv"]

    # The mart follows by its automation condition, without anything being switched on.
    def domains_in_mart() -> set[str]:
        return set(
            DeltaTable(f"{ui.settings.storage}/malicious_urls/prediction_mart")
            .to_pyarrow_table()["registered_domain"]
            .to_pylist()
        )

    wait_for(lambda: "seen-nowhere.test" in domains_in_mart(), 300, "the mart has the new file's domain")

    a_late_correction_of_a_sensor_goes_the_whole_way(ui, page, trained_folder)

    # A run that fails is told to the webhook.
    wait_for(lambda: webhook.posted, 300, "the alert")
    assert webhook.posted[0]["assets"] == ["/".join(CLASSIFIER)]
    assert "there is no family 'no such family'" in webhook.posted[0]["text"]

    # The new messages' partitions turn green, although the daemon has died meanwhile.
    def green() -> bool:
        keys = ui.partitions("batch_metrics", "crimes")
        return max(parse(key).end for key in keys) == 1_500 and keys == ui.materialized_partitions(
            "batch_metrics", "crimes"
        )

    wait_for(green, 420, "all batches are green")
    batches = sorted(map(parse, ui.partitions("batch_metrics", "crimes")), key=lambda batch: batch.first)
    assert [offset for batch in batches for offset in range(batch.first, batch.end)] == list(range(1_500))
    scores = DeltaTable(f"{ui.settings.storage}/crimes/arrest_scores").to_pyarrow_table(
        columns=["kafka_offset", "model"]
    )
    assert scores.num_rows == len(set(zip(*scores.to_pydict().values(), strict=True))) == 1_500 * 7

    # The report follows by its automation condition.
    wait_for(lambda: ui.number("stream_report", "batches", "crimes") == len(batches), 300, "the report has all batches")
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
    stack.stop()


def a_late_correction_of_a_sensor_goes_the_whole_way(ui: Ui, page: Page, trained_folder: Path) -> None:
    """Cassandra, its month exported and published from the UI, the topic, the sensor, a green batch, scores."""
    branch, tables = "flow_sensors", f"{ui.settings.storage}/flow_sensors"
    known = ui.partitions("anomaly_scores", branch)
    row = DeltaTable(f"{tables}/channel_samples").to_pyarrow_table().slice(0, 1).to_pylist()[0]
    file = trained_folder / "correction.csv"
    file.write_text(f"site,channel,time,value\n{row['site']},{row['channel']},{row['observed_at'].isoformat()},-77\n")
    with (trained_folder / "load.log").open("w") as log:
        assert ui.project.cli("load", "sensors", str(file), output=log).wait(120) == 0, (
            trained_folder / "load.log"
        ).read_text()
    ui.start_sensor("new_channel_batches")
    month = f"{row['observed_at']:%Y-%m}"
    ui.launch([branch, "channel_export"], [branch, "channel_publications"], partition=month)

    def scored() -> set[str]:
        return ui.materialized_partitions("anomaly_scores", branch) - known

    wait_for(scored, 300, "the correction's batch is scored")
    (key,) = scored()
    (now,) = DeltaTable(f"{tables}/channel_samples").to_pyarrow_table(filters=[("batch", "=", key)]).to_pylist()
    assert (now["version"], now["value"], now["observed_at"]) == (row["version"] + 1, -77.0, row["observed_at"])
    scores = DeltaTable(f"{tables}/anomaly_scores").to_pyarrow_table(filters=[("batch", "=", key)])
    assert set(scores["model"].to_pylist()) == set(MODELS)
    for name in ("anomaly_report", "channel_quality_report", "site_map", "site_correlations_report"):
        page.goto(f"{ui.url}/assets/{branch}/{name}")
        page.locator(f"img[src^='{ui.settings.reports_url}']").first.wait_for(timeout=60_000)
        pictures_fit(page, ui.settings.reports_url)
        page.screenshot(path=trained_folder / f"{name}.png")


def test_nothing_of_the_sample_is_sent_to_a_broker_that_is_not_ours(
    engines: Engines, settings: Settings, tmp_path: Path
) -> None:
    """`make run` beside another broker, here the session's, which its settings name."""
    (tmp_path / "sources").symlink_to(settings.services_dir.parent / "sources")
    own = {
        "services_dir": tmp_path / "services",
        "spark_remote": f"sc://localhost:{free_port()}",
        "ui_port": free_port(),
        "reports_url": "",
        "topics": {"crimes": "crimes.of.somebody"},
    }
    topics = topics_of(engines.settings.kafka_servers)
    stack = Stack(Project(tmp_path, settings.model_copy(update=own)), tmp_path / "run.log")
    try:
        stack.wait_for(lambda: "is not the broker that this project started" in stack.printed(), 300, "a clear line")
        # Only looking for what there is to do sends anything, and this is over when the first run begins.
        stack.wait_for(lambda: "\nrun " in stack.printed(), 300, "the first run")
        assert "using the Kafka broker that answers" in stack.printed()
        stack.stop()
    finally:
        stack.kill()
    assert topics_of(engines.settings.kafka_servers) == topics
