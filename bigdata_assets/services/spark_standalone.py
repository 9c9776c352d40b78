"""A Spark standalone cluster on loopback: a master and two workers, to see the same code run on a cluster."""

import json
import urllib.request
from collections.abc import Iterator

from bigdata_assets.services import jars
from bigdata_assets.services.supervisor import Process, port_answers
from bigdata_assets.settings import Settings

WORKERS = 2
WORKER_MEMORY = "1200m"
EXECUTOR_MEMORY = "1g"


def standalone(settings: Settings, master_port: int, ui_port: int) -> Iterator[Process]:
    """Master and workers as processes to keep up; the server connects to `spark://127.0.0.1:<master_port>`."""
    spark_class = str(jars.spark_home() / "bin" / "spark-class")
    environment: dict[str, str | None] = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_HOME": str(jars.spark_home()),
        # Otherwise a master whose port is taken moves on to the next one, and workers join a stranger's cluster.
        "SPARK_DAEMON_JAVA_OPTS": "-Dspark.port.maxRetries=0 -Dspark.master.rest.enabled=false",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_REMOTE": None,
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": None,
    }
    address = ["--host", "127.0.0.1"]
    yield Process(
        "spark-master",
        [
            *(spark_class, "org.apache.spark.deploy.master.Master", *address),
            *("--port", str(master_port), "--webui-port", str(ui_port)),
        ],
        environment=environment,
        ready=lambda: port_answers(master_port) and port_answers(ui_port),
        awaited=True,
    )
    for number in range(1, WORKERS + 1):
        yield Process(
            f"spark-worker-{number}",
            [
                *(spark_class, "org.apache.spark.deploy.worker.Worker", *address, "--cores", "1"),
                *("--memory", WORKER_MEMORY, "--webui-port", "0"),
                *("--work-dir", str(settings.services_dir / "spark" / f"worker-{number}")),
                f"spark://127.0.0.1:{master_port}",
            ],
            environment=environment,
            ready=lambda number=number: _alive_workers(ui_port) >= number,  # type: ignore[misc]
            awaited=True,
        )


def _alive_workers(ui_port: int) -> int:
    """Workers that the master knows; none while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ui_port}/json/", timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
    except (OSError, ValueError, KeyError):
        return 0
