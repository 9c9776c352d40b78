"""The local Spark Connect server: behind a token, with Delta Lake, and on loopback unless SPARK_DRIVER_HOST says else.

As a script: asks it `SELECT 1`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from bigdata_assets import settings as settings_module
from bigdata_assets.services import jars, secret, template
from bigdata_assets.services.spark_standalone import EXECUTOR_MEMORY, standalone
from bigdata_assets.services.supervisor import Process, die_with_parent, free_port, port_answers
from bigdata_assets.settings import LOOPBACK, Settings
from bigdata_assets.storage import spark_configuration

CONFIGURATION = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.ui.enabled": "false",
    # Python workers inherit the server's environment; this starts them without the token, and ends what is idle.
    "spark.python.daemon.module": "bigdata_assets.services.python_workers",
    "spark.sql.session.timeZone": "UTC",
    # The defaults of 200 and 50 make tiny tables slow.
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    "spark.sql.connect.serverStacktrace.enabled": "false",
}


def token(settings: Settings) -> str:
    """The server's token, made at its first start."""
    return settings.token() or secret(settings.token_file)


def spark_connect(settings: Settings) -> Iterator[Process]:
    """The server as a process to keep up, after its cluster where it has one; its jars are fetched here."""
    jars.require_java()
    master, cluster_configuration = settings.spark_master, {}
    if master == "standalone":
        master_port = free_port()
        master = f"spark://127.0.0.1:{master_port}"
        cluster_configuration = {"spark.executor.memory": EXECUTOR_MEMORY, "spark.port.maxRetries": "0"}
        yield from standalone(settings, master_port, free_port())
    folder = settings.services_dir / "spark"
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed server left: shuffle files, artifacts
    scratch.mkdir(parents=True)
    log_config = folder / "log4j2.properties"
    log_config.write_text(template("log4j2.properties"))
    log_file = settings.services_dir / "logs" / "spark-connect-server.log"
    archives = jars.fetch("spark", settings.jars_dir)
    archives += jars.fetch("s3", settings.jars_dir) if settings.storage_is_s3 else []
    # The second compiler takes two thirds of the server's first minutes, and of a sample there are no more.
    jit = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m " if settings.sources == "sample" else ""
    java_options = f'{jit}-Dlog4j2.configurationFile="{log_config}" -Dbigdata.log="{log_file}"'
    host = settings.spark_driver_host
    listens_on = host if host == LOOPBACK else "0.0.0.0"  # noqa: S104 -- what the setting is for
    configuration = {
        **CONFIGURATION,
        "spark.connect.grpc.binding.address": listens_on,
        "spark.driver.host": host,
        "spark.driver.bindAddress": listens_on,
        **cluster_configuration,
        **spark_configuration(settings, scratch),
        "spark.connect.grpc.binding.port": str(settings.spark_port),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(scratch),
        "spark.driver.extraJavaOptions": f'{java_options} -Dderby.system.home="{scratch}"',
    }
    command = [str(jars.spark_home() / "bin" / "spark-submit")]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "--name", "bigdata_assets"]
    command += [
        "--master",
        master,
        "--driver-memory",
        settings.spark_driver_memory,
        "--jars",
        ",".join(map(str, archives)),
    ]
    command += [part for key, value in configuration.items() for part in ("--conf", f"{key}={value}")]
    own_token = token(settings)
    environment: dict[str, str | None] = {
        **settings.environment(),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": LOOPBACK if host == LOOPBACK else None,
        "SPARK_HOME": str(jars.spark_home()),
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": own_token,
        # For a client this names the server; spark-submit takes it for its own master and refuses to start.
        "SPARK_REMOTE": None,
    }
    yield Process(
        name="spark-connect",
        command=[*command, "spark-internal"],
        environment=environment,
        ready=lambda: _answers(settings, own_token),
        port=settings.spark_port,
        port_setting="SPARK_REMOTE (as sc://localhost:PORT)",
    )


def _answers(settings: Settings, own_token: str) -> bool:
    """Whether a query is answered. In a process of its own: a client that never gets an answer cannot be called off."""
    if not port_answers(settings.spark_port):
        return False
    environment = {**os.environ, **settings.environment(), "SPARK_CONNECT_AUTHENTICATE_TOKEN": own_token}
    try:
        probe = subprocess.run(  # noqa: PLW1510
            [sys.executable, "-m", __spec__.name],
            env=environment,
            capture_output=True,
            timeout=60,
            preexec_fn=die_with_parent,
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


if __name__ == "__main__":
    from pyspark.sql import SparkSession

    session = SparkSession.builder.remote(settings_module.load().spark_remote).create()
    session.sql("SELECT 1").collect()
    session.stop()
