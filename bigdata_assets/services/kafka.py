"""The local Kafka broker: one KRaft node on loopback."""

import subprocess
import uuid

from bigdata_assets.services import jars, template
from bigdata_assets.services.supervisor import Process, ServiceError, free_port, port_answers
from bigdata_assets.settings import Settings

FLAGS = "-Xms256m -Xmx512m -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -Djava.net.preferIPv4Stack=true".split()


def kafka(settings: Settings) -> Process:
    """The broker as a process to keep up; its jars are fetched and its storage is formatted here."""
    jars.require_java()
    folder = settings.services_dir / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    class_path = ":".join(str(path) for path in jars.fetch("kafka", settings.jars_dir))
    configuration = folder / "server.properties"
    values = {"port": settings.kafka_port, "controller_port": free_port(), "data": _escaped(str(folder / "data"))}
    configuration.write_text(template("server.properties", **values), encoding="ascii")
    log_config = folder / "log4j2.properties"
    log_config.write_text(template("log4j2.properties"))
    logging = (
        f"-Dlog4j2.configurationFile={log_config.as_uri()}",
        f"-Dbigdata.log={settings.services_dir / 'logs' / 'kafka-server.log'}",
    )
    if not (folder / "data" / "meta.properties").exists():
        _format(class_path, str(configuration))
    return Process(
        name="kafka",
        command=["java", *FLAGS, *logging, "-cp", class_path, "kafka.Kafka", str(configuration)],
        ready=lambda: _answers(settings),
        port=settings.kafka_port,
        port_setting="KAFKA_BOOTSTRAP_SERVERS (as localhost:PORT)",
    )


def _format(class_path: str, configuration: str) -> None:
    """Write the storage's identity; one that was cut off in the middle is written again."""
    command = ["java", "-Xmx128m", "-cp", class_path, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
    command += ["--config", configuration, "--cluster-id", uuid.uuid4().hex[:22]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"kafka: its storage could not be formatted: {(done.stdout + done.stderr).strip()[-500:]}")


def _answers(settings: Settings) -> bool:
    """Whether the broker says that it takes part in its cluster."""
    # Before the port is open, the client would back off for seconds.
    if not port_answers(settings.kafka_port):
        return False
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        client = KafkaAdminClient(bootstrap_servers=settings.kafka_servers, request_timeout_ms=5_000)
    except (KafkaError, OSError):
        return False
    try:
        return any(not broker["is_fenced"] for broker in client.describe_cluster()["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        client.close()


def _escaped(text: str) -> str:
    """A value as Java reads it from a properties file: a backslash and what is beyond ASCII are escaped."""
    return text.replace("\\", "\\\\").encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00")
