"""The whole stack as `make run` has it, with engines of its own: its process and what it prints, and its GraphQL."""

import contextlib
import json
import os
import signal
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bigdata_assets.runs.ranges import ONE_KEY
from bigdata_assets_tests.conftest import PATIENCE, alive, wait_for
from bigdata_assets_tests.integration.conftest import Project

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

    def status(self, url: str, **headers: str) -> int:
        """What a server answers to a GET, by its status alone."""
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def materialized_partitions(self, asset: str, branch: str = "malicious_urls") -> set[str]:
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            assetMaterializations { partition } } } }"""
        node = self.graphql(query, key={"path": [branch, asset]})["assetNodeOrError"]
        return {event["partition"] for event in node["assetMaterializations"]}

    def partitions(self, asset: str, branch: str) -> set[str]:
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            partitionKeys } } }"""
        return set(self.graphql(query, key={"path": [branch, asset]})["assetNodeOrError"]["partitionKeys"])

    def run_statuses(self) -> Counter[str]:
        results = self.graphql("{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
        return Counter(run["status"] for run in results)

    def run_of(self, asset: str, branch: str = "malicious_urls") -> str:
        """The run that has materialised an asset last."""
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            assetMaterializations(limit: 1) { runId } } } }"""
        node = self.graphql(query, key={"path": [branch, asset]})["assetNodeOrError"]
        return str(node["assetMaterializations"][0]["runId"])

    def partitions_that_are_not_green(self) -> dict[str, dict[str, int]]:
        """Of each partitioned asset that has any, as the UI counts them."""
        query = """{ assetNodes { assetKey { path } partitionStats {
            numPartitions numMaterialized numFailed numMaterializing } } }"""
        stats = {"/".join(n["assetKey"]["path"]): n["partitionStats"] for n in self.graphql(query)["assetNodes"]}
        return {name: of for name, of in stats.items() if of and of["numMaterialized"] != of["numPartitions"]}

    def partitions_asked_for(self, job: str) -> list[str]:
        query = "{ runsOrError { ... on Runs { results { jobName tags { key value } } } } }"
        runs = self.graphql(query)["runsOrError"]["results"]
        tags = [tag for run in runs if run["jobName"] == job for tag in run["tags"]]
        return [tag["value"] for tag in tags if tag["key"] == "dagster/partition"]

    def number(self, asset: str, label: str, branch: str = "malicious_urls") -> int:
        """A whole number in the metadata of an asset's last materialisation."""
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            assetMaterializations(limit: 1) { metadataEntries { label
            ... on IntMetadataEntry { intValue } } } } } }"""
        node = self.graphql(query, key={"path": [branch, asset]})["assetNodeOrError"]
        (newest,) = node["assetMaterializations"]
        return next(int(entry["intValue"]) for entry in newest["metadataEntries"] if entry["label"] == label)

    def sensor_status(self, name: str) -> str:
        query = """query ($s: SensorSelector!) { sensorOrError(sensorSelector: $s) {
            ... on Sensor { sensorState { status } } } }"""
        return str(self.graphql(query, s={**LOCATION, "sensorName": name})["sensorOrError"]["sensorState"]["status"])

    def launch(self, *assets: list[str], config: dict[str, Any] | None = None, partition: str = "") -> None:
        """Materialise assets, as the button in the UI does; `config` is the first one's."""
        mutation = "mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"
        selector = {
            **LOCATION,
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": asset} for asset in assets],
            "assetCheckSelection": [],
        }
        run_config = {"ops": {"__".join(assets[0]): {"config": config}}} if config else {}
        tags = [{"key": ONE_KEY, "value": partition}] if partition else []
        parameters = {"selector": selector, "runConfigData": run_config, "executionMetadata": {"tags": tags}}
        launched = self.graphql(mutation, p=parameters)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess"

    def start_sensor(self, name: str) -> None:
        mutation = """mutation ($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename
            ... on PythonError { message } } }"""
        started = self.graphql(mutation, s={**LOCATION, "sensorName": name})["startSensor"]
        assert started["__typename"] == "Sensor", started


class Stack:
    """`bigdata-assets run`, which `make run` calls, with what it prints."""

    def __init__(self, project: Project, log: Path, *options: str) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = project.cli("run", *options, output=file)

    def printed(self) -> str:
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], Any], within_s: float, what: str) -> None:
        wait_for(lambda: condition() or self.process.poll() is not None, within_s, what)
        assert self.process.poll() is None, self.printed()

    def listens_on(self) -> set[str]:
        """Addresses that any process of it listens on."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        sockets = []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                sockets += process.net_connections("inet")
        return {one.laddr.ip.removeprefix("::ffff:") for one in sockets if one.status == psutil.CONN_LISTEN}

    def stop(self) -> None:
        """Ctrl-C: it ends well and leaves nothing behind."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        os.kill(self.process.pid, signal.SIGINT)
        assert self.process.wait(60 * PATIENCE) == 0, self.printed()
        assert not alive(family), "Ctrl-C left processes"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
