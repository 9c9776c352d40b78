"""Every environment variable of the project, once, typed, with its default.

Nothing else in the package reads `os.environ`. A bad value fails when the settings are loaded, by its name.
"""

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import psutil
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

PROJECT_ROOT = Path(__file__).resolve().parent.parent
"""The clone when the package is installed in editable form, as `make env` does it."""


TOPIC = "KAFKA_*_TOPIC"
"""Variables of streams' topics, such as KAFKA_CRIMES_TOPIC."""
OWN_CASSANDRA_USER = "bigdata_assets"
"""Of the local Cassandra node."""
LOOPBACK = "127.0.0.1"
CLOSE = 0.88
"""How alike, from 0 to 1, names are one of which may be meant by the other."""
S3_REGION = "us-east-1"
REFRESH_SENSOR = "refresh"
"""The sensor that refreshes what is made of other assets; here, since `make run` asks for it before it imports them."""


class SettingsError(ValueError):
    """An environment variable has a value that cannot be used."""


def legal_topic(name: str) -> str:
    """A Kafka topic's name, as it may stand in a partition key and a path too.

    Raises:
        ValueError: it may not; the message says what may.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,180}", name) or name in (".", ".."):
        raise ValueError(f"a topic's name is 1 to 180 of A-Z a-z 0-9 . _ -, and neither . nor ..; {name!r} is not")
    return name


def _max_concurrent() -> int:
    """Runs at once, and steps at once of each run: the root of the processes that fit this machine, 4 at most.

    Two a core, since they wait for Spark much of the time, and 2 GB for each: with TensorFlow it takes up to 1.5. Not
    more by itself: in a container the machine may look larger than it is, and all ask one Spark server.
    """
    processes = min(2 * (os.cpu_count() or 1), psutil.virtual_memory().total // 2_000_000_000)
    return min(max(2, math.isqrt(processes)), 4)


class Settings(BaseModel):
    """The settings; each field's alias is the name of its environment variable."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    sources: str = Field(
        "sample",
        alias="BIGDATA_SOURCES",
        description="Where inputs come from: `sample`, `official`, or a folder with the official files.",
    )
    storage: str = Field(
        str(PROJECT_ROOT / "var" / "storage"),
        alias="BIGDATA_STORAGE",
        description="Folder or URL (s3a://bucket/path, abfss://, hdfs://) of tables, models and reports.",
    )
    aws_access_key_id: str | None = Field(
        None,
        alias="AWS_ACCESS_KEY_ID",
        repr=False,
        description="Key for a storage on S3; default: such as each library finds, of a machine's role.",
    )
    aws_secret_access_key: str | None = Field(
        None, alias="AWS_SECRET_ACCESS_KEY", repr=False, description="Its secret.", validate_default=True
    )
    aws_region: str = Field(
        S3_REGION, alias="AWS_REGION", pattern=r"^[a-z0-9-]+$", description="Region of the storage's bucket."
    )
    aws_endpoint_url: str | None = Field(
        None, alias="AWS_ENDPOINT_URL", description="Where S3 is spoken to; default: Amazon's own of the region."
    )
    dagster_home: Path = Field(
        PROJECT_ROOT / "var" / "dagster", alias="DAGSTER_HOME", description="Dagster's own storage and dagster.yaml."
    )
    services_dir: Path = Field(
        PROJECT_ROOT / "var" / "services",
        alias="BIGDATA_SERVICES",
        description="Data, logs, jars and secrets of the local engines.",
    )
    jars: Path | None = Field(
        None, alias="BIGDATA_JARS", description="Java archives of the local engines; default: BIGDATA_SERVICES/jars."
    )
    spark_remote: str = Field(
        "sc://localhost:15002",
        alias="SPARK_REMOTE",
        description="Spark Connect server; one on localhost is started here.",
    )
    spark_token: str | None = Field(
        None,
        alias="SPARK_CONNECT_AUTHENTICATE_TOKEN",
        repr=False,
        description="Token of the Spark Connect server; the local server's is made at its first start.",
    )
    spark_driver_memory: str = Field(
        "3g",
        alias="SPARK_DRIVER_MEMORY",
        pattern=r"^\d+[mg]$",
        description="Heap of the local Spark Connect server.",
    )
    spark_master: str = Field(
        "local[*]",
        alias="SPARK_MASTER",
        pattern=r"^(local(\[(\d+|\*)\])?|standalone|spark://[A-Za-z0-9._:,-]+|k8s://https?://[A-Za-z0-9._:\[\]-]+)$",
        description=(
            "What the local server computes on: local[N]; `standalone`, a master and two workers beside it; or a "
            "cluster elsewhere, spark://HOST:PORT or k8s://https://HOST:PORT."
        ),
    )
    spark_driver_host: str = Field(
        LOOPBACK,
        alias="SPARK_DRIVER_HOST",
        pattern=r"^[A-Za-z0-9.:-]+$",
        description=(
            "Name or address of this machine for a cluster elsewhere and for clients on other machines: the local "
            "Spark Connect server and Spark's own ports then listen on all its addresses, which is for a network that "
            "nobody else is on; by default on loopback alone."
        ),
    )
    kafka_servers: str = Field(
        "localhost:9092",
        alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Kafka brokers, host:port with commas between; one on localhost is started here.",
    )
    kafka_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", alias="KAFKA_SECURITY_PROTOCOL", description="How Kafka is spoken to."
    )
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", alias="KAFKA_SECURITY_SASL_MECHANISM", description="How one logs in with SASL."
    )
    kafka_username: str | None = Field(None, alias="KAFKA_SECURITY_USERNAME", description="User, with SASL.")
    kafka_password: str | None = Field(
        None, alias="KAFKA_SECURITY_PASSWORD", repr=False, description="Password, with SASL."
    )
    kafka_ca_file: Path | None = Field(
        None, alias="KAFKA_SECURITY_CA_FILE", description="Certificates to trust, with SSL; default: the system's."
    )
    cassandra_points: str = Field(
        "localhost:9042",
        alias="CASSANDRA_CONTACT_POINTS",
        description="Cassandra nodes, host or host:port with commas between; one on localhost is started here.",
    )
    cassandra_username: str | None = Field(
        None, alias="CASSANDRA_USERNAME", description="User; with one, a node on localhost is yours and not started."
    )
    cassandra_password: str | None = Field(None, alias="CASSANDRA_PASSWORD", repr=False, description="Its password.")
    cassandra_data_centre: str | None = Field(
        None, alias="CASSANDRA_LOCAL_DC", description="Data centre to talk to; default: that of the first node."
    )
    cassandra_keyspace: str = Field(
        "flow_sensors",
        alias="CASSANDRA_KEYSPACE",
        pattern=r"^[a-z][a-z0-9_]{0,47}$",
        description="Keyspace of the sensors' tables.",
    )
    cassandra_replication: str = Field(
        "1",
        alias="CASSANDRA_REPLICATION",
        pattern=r"^(\d+|[A-Za-z0-9_-]+=\d+(,[A-Za-z0-9_-]+=\d+)*)$",
        description="Copies in a keyspace that `load` makes: a number, or DATA_CENTRE=NUMBER with commas between.",
    )
    cassandra_ca_file: Path | None = Field(
        None, alias="CASSANDRA_CA_FILE", description="Certificates to trust; with it Cassandra is spoken to by TLS."
    )
    window: int = Field(60, alias="FLOW_SENSORS_WINDOW", ge=4, le=100_000, description="Samples of a window of a site.")
    window_step: int = Field(
        1, alias="FLOW_SENSORS_STEP", ge=1, le=100_000, description="Samples from one window's begin to the next one's."
    )
    url_suffixes: Literal["icann", "private"] = Field(
        "icann",
        alias="MALICIOUS_URLS_SUFFIXES",
        description=(
            "What URLs' registered domains are below: `icann`, suffixes of registries; `private`, also those of "
            "companies that let anybody have names, such as github.io."
        ),
    )
    topics: dict[str, Annotated[str, AfterValidator(legal_topic)]] = Field(
        {}, alias=TOPIC, description="A stream's topic, where it is not named after the stream."
    )
    batch_rows: int = Field(
        5_000, alias="BATCH_ROWS", gt=0, le=1_000_000, description="Most messages of a Kafka batch, one partition."
    )
    batch_seconds: float = Field(
        60, alias="BATCH_SECONDS", ge=0, description="Fewer messages become a batch when they have waited this long."
    )
    batches_per_run: int = Field(
        20, alias="BATCHES_PER_RUN", gt=0, le=1_000, description="Most Kafka batches that the sensor puts into a run."
    )
    crimes_refit_rows: int = Field(
        5_000,
        alias="CRIMES_REFIT_ROWS",
        gt=0,
        description="New reports after which Spark's arrest models are fitted anew, which takes up to 20 s.",
    )
    big_cats_classes: str = Field(
        "Tiger,Lion,Cheetah,Leopard,Jaguar (Animal),Lynx",
        alias="BIG_CATS_CLASSES",
        description="Classes of Open Images: MIDs or exact names, commas between; `NAME=INDEX+INDEX` names synsets.",
    )
    big_cats_networks: str = Field(
        "MobileNet,MobileNetV2,ResNet50,EfficientNetV2S",
        alias="BIG_CATS_NETWORKS",
        pattern=r"^[A-Za-z0-9]+(,[A-Za-z0-9]+)*$",
        description="Networks that name chips, as keras.applications calls them, commas between.",
    )
    big_cats_weights: str = Field(
        "",
        alias="BIG_CATS_WEIGHTS",
        description="`NETWORK=FILE`, `NETWORK=imagenet` (downloaded) or `NETWORK=none`, commas between.",
    )
    big_cats_images_url: str = Field(
        "https://open-images-dataset.s3.amazonaws.com",
        alias="BIG_CATS_IMAGES_URL",
        description="Where official pictures are downloaded from: <subset>/<id>.jpg below it.",
    )
    reports_url: str = Field(
        "http://127.0.0.1:3001",
        alias="BIGDATA_REPORTS_URL",
        description="Where BIGDATA_STORAGE/reports is served; empty: pictures are put into the metadata instead.",
    )
    ui_port: int = Field(
        3000, alias="DAGSTER_WEBSERVER_PORT", gt=0, lt=65536, description="Port of the Dagster UI of `make run`."
    )
    ui_hosts: str = Field(
        "",
        alias="BIGDATA_UI_HOSTS",
        description="Names, with commas between, by which a proxy makes UI and reports reachable; others are refused.",
    )
    max_concurrent: int = Field(
        default_factory=_max_concurrent,
        alias="MAX_CONCURRENT",
        gt=0,
        description="Most steps at once of a run, and most runs at once in a new dagster.yaml; default: as fit here.",
    )
    alert_webhook_url: str = Field(
        "",
        alias="ALERT_WEBHOOK_URL",
        repr=False,
        description="A failed run is posted here as JSON; empty: it is only logged.",
    )

    @field_validator("sources")
    @classmethod
    def _sources_exist(cls, value: str) -> str:
        if value in ("sample", "official"):
            return value
        folder = Path(value).expanduser().resolve()
        if not folder.is_dir():
            raise ValueError(f"must be `sample`, `official` or an existing folder; there is no folder {folder}")
        return str(folder)

    @field_validator("storage")
    @classmethod
    def _storage_is_absolute(cls, value: str) -> str:
        """A relative folder would mean another place for each engine's own working directory."""
        if value.startswith("s3://"):
            value = "s3a://" + value.removeprefix("s3://")  # Spark's name for it, which all here know
        if value.startswith("s3a://") and not re.match(r"s3a://[A-Za-z0-9._-]+(/|$)", value):
            raise ValueError("must name a bucket, such as s3a://bucket/path")
        if value.startswith("s3a://") and re.search(r"[*?\[\]{}#%\s]", value):
            raise ValueError("must have no * ? [ ] { } # % or space in it: libraries take them for patterns")
        return value.rstrip("/") if "://" in value else str(Path(value).expanduser().resolve())

    @field_validator("aws_secret_access_key")
    @classmethod
    def _key_has_a_secret(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("storage", "").startswith("s3a://") and bool(value) != bool(info.data["aws_access_key_id"]):
            raise ValueError("is set or unset together with AWS_ACCESS_KEY_ID")
        return value

    @field_validator("dagster_home", "services_dir")
    @classmethod
    def _folders_are_absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("spark_remote")
    @classmethod
    def _remote_is_a_connect_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme != "sc" or not url.hostname:
            raise ValueError("must look like sc://localhost:15002")
        if url.hostname == "127.0.0.1":
            # The client uses TLS for every host but this name as soon as there is a token, and then hangs.
            raise ValueError("must say sc://localhost, not sc://127.0.0.1")
        return value

    @field_validator("kafka_servers")
    @classmethod
    def _servers_have_ports(cls, value: str) -> str:
        servers = [server.strip() for server in value.split(",")]
        for server in servers:
            if not re.fullmatch(r"[A-Za-z0-9._-]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}", server):
                raise ValueError(f"must be host:port, with commas between several; {server!r} is not")
        return ",".join(servers)

    @field_validator("cassandra_points")
    @classmethod
    def _points_are_hosts(cls, value: str) -> str:
        points = [point.strip() for point in value.split(",")]
        for point in points:
            if not re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?", point):
                raise ValueError(f"must be host or host:port, with commas between several; {point!r} is not")
        if len({point.rpartition(":")[2] for point in points if ":" in point.rpartition("]")[2]}) > 1:
            raise ValueError("must have one port: Cassandra's nodes listen on the same one")
        return ",".join(points)

    @field_validator("reports_url", "alert_webhook_url", "big_cats_images_url", "aws_endpoint_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError("must be an http:// or https:// address, or empty")
        return value.rstrip("/")

    @property
    def private_suffixes(self) -> bool:
        """Whether registered domains of URLs are below private suffixes too."""
        return self.url_suffixes == "private"

    @property
    def ui_host_names(self) -> list[str]:
        """Names of UI and reports beside the loopback's."""
        return [name for host in self.ui_hosts.split(",") if (name := host.strip())]

    @property
    def token_file(self) -> Path:
        """Where the local Spark Connect server's token is kept, mode 600."""
        return self.services_dir / "spark-connect.token"

    @property
    def jars_dir(self) -> Path:
        """Where the Java archives of the local engines are kept."""
        return self.jars or self.services_dir / "jars"

    @property
    def spark_is_local(self) -> bool:
        """Whether the Spark Connect server is one that this project starts itself."""
        return urlsplit(self.spark_remote).hostname == "localhost"

    @property
    def spark_port(self) -> int:
        return urlsplit(self.spark_remote).port or 15002

    @property
    def kafka_is_local(self) -> bool:
        """Whether the Kafka broker is one that this project starts itself."""
        return self.kafka_servers.startswith(("localhost:", "127.0.0.1:")) and "," not in self.kafka_servers

    @property
    def kafka_port(self) -> int:
        return int(self.kafka_servers.rpartition(":")[2])

    @property
    def own_kafka_cluster(self) -> str | None:
        """Id of the Kafka cluster that this project has made itself; None before it has."""
        identity = self.services_dir / "kafka" / "data" / "meta.properties"
        found = re.search(r"^cluster\.id=(\S+)$", identity.read_text(), re.MULTILINE) if identity.exists() else None
        return found[1] if found else None

    @property
    def cassandra_hosts(self) -> list[str]:
        return [re.sub(r":\d+$|[\[\]]", "", point) for point in self.cassandra_points.split(",")]

    @property
    def cassandra_port(self) -> int:
        ports = [match[1] for point in self.cassandra_points.split(",") if (match := re.search(r"\]?:(\d+)$", point))]
        return int(ports[0]) if ports else 9042

    @property
    def cassandra_is_local(self) -> bool:
        """Whether the Cassandra node is one that this project starts itself."""
        return self.cassandra_hosts in (["localhost"], ["127.0.0.1"]) and not self.cassandra_username

    @property
    def cassandra_password_file(self) -> Path:
        """Where the local Cassandra node's password is kept, mode 600."""
        return self.services_dir / "cassandra.password"

    @property
    def own_cassandra_cluster(self) -> str | None:
        """Name of the Cassandra cluster that this project has made itself; None before it has."""
        name = self.services_dir / "cassandra" / "cluster"
        return name.read_text() if name.exists() else None

    @property
    def storage_is_s3(self) -> bool:
        return self.storage.startswith("s3a://")

    @property
    def storage_is_ours(self) -> bool:
        """Whether BIGDATA_STORAGE is below the clone's `var`, or the folder `storage` beside the local engines' own."""
        if "://" in self.storage:
            return False
        storage = Path(self.storage)
        return storage == self.services_dir.parent / "storage" or storage.is_relative_to(PROJECT_ROOT / "var")

    @property
    def sample_refusal(self) -> str:
        """Why the sample is not used although no other sources are set; empty where it may be."""
        if "sources" in self.model_fields_set or self.storage_is_ours:
            return ""
        return (
            f"BIGDATA_STORAGE is {self.storage}, a storage of yours, and BIGDATA_SOURCES is not set: it would get "
            "tables of invented data. Set BIGDATA_SOURCES to a folder with your files or to `official`, or to `sample` "
            "if you do want the sample's tables there."
        )

    def topic(self, stream: str) -> str:
        """The Kafka topic of a stream."""
        return self.topics.get(stream, stream.replace("_", "-"))

    def cassandra_login(self) -> tuple[str, str] | None:
        """User and password: from the environment, else of the local node, else none."""
        if self.cassandra_username:
            return self.cassandra_username, self.cassandra_password or ""
        if self.cassandra_is_local and self.cassandra_password_file.exists():
            return OWN_CASSANDRA_USER, self.cassandra_password_file.read_text().strip()
        return None

    def token(self) -> str | None:
        """The Spark Connect token: from the environment, else from the local server's file, else none."""
        if self.spark_token:
            return self.spark_token
        return self.token_file.read_text().strip() if self.spark_is_local and self.token_file.exists() else None

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for processes that are started with them; unset ones left out.

        BIGDATA_SOURCES and the addresses of Kafka and Cassandra too where they were not given: whether the sample was
        asked for, and whether a broker or node is one that the user has named, must not be lost on the way. And of
        Amazon's own variables those that no storage needs.
        """
        topics = {TOPIC.replace("*", stream.upper()): topic for stream, topic in self.topics.items()}
        return topics | {
            str(field.alias): str(value)
            for name, field in type(self).model_fields.items()
            if ((value := getattr(self, name)) not in (None, "") or name == "reports_url")
            and (name not in ("sources", "kafka_servers", "cassandra_points") or name in self.model_fields_set)
            and name != "topics"
            and (self.storage_is_s3 or not name.startswith("aws_"))
        }


def forget_empty_amazon() -> None:
    """Take Amazon's variables that are empty out of this process's environment: some libraries break on them."""
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
        del os.environ[name]


def s3_endpoint() -> str | None:
    """AWS_ENDPOINT_URL of this process: Spark's workers have the environment, and not all that other settings name."""
    return os.environ.get("AWS_ENDPOINT_URL") or None


def s3_region() -> str:
    """AWS_REGION of this process."""
    return os.environ.get("AWS_REGION") or S3_REGION


def misspelt(environ: Iterable[str], written: Iterable[str]) -> list[str]:
    """A line for each variable that looks like a setting and is none, so that it would be passed over in silence.

    Args:
        environ: names in the environment, of which those that begin as ours do are looked at.
        written: names in an .env file.
    """
    known = [str(field.alias) for field in Settings.model_fields.values()]
    is_known = re.compile("|".join(re.escape(name).replace(r"\*", "[A-Z0-9_]+") for name in known)).fullmatch
    told = []
    for name in sorted({*written, *(one for one in environ if one.startswith("BIGDATA_"))}):
        close = difflib.get_close_matches(name, known, 1, CLOSE)
        # SPARK_MASTER_HOST is another program's.
        if close and not is_known(name) and not name.startswith(f"{close[0]}_"):
            told.append(f"{name} is no setting; is {close[0]} meant?")
    return told


def load(environ: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the environment.

    Raises:
        SettingsError: naming each variable that has a bad value, and what it must be.
    """
    environ = os.environ if environ is None else environ
    fields = {str(field.alias): field for field in Settings.model_fields.values()}
    # An empty variable means the default, as a line `NAME=` of an .env file is meant; only for the reports' address
    # does empty have a meaning of its own.
    given = {n: environ[n] for n in fields if environ.get(n) or (n in environ and n == "BIGDATA_REPORTS_URL")}
    streams = {n: re.fullmatch(TOPIC.replace("*", "([A-Z0-9_]+)"), n) for n in environ if environ[n]}
    given[TOPIC] = {match[1].lower(): environ[n] for n, match in streams.items() if match}
    try:
        return Settings(**given)
    except ValidationError as error:
        of = fields | {name: fields[str(field.alias)] for name, field in Settings.model_fields.items()}  # of defaults
        problems = [
            f"{str(of[str(e['loc'][0])].alias).replace('*', str(e['loc'][-1]).upper())}: "
            f"{e['msg'].removeprefix('Value error, ')}"
            + ("" if of[str(e["loc"][0])].repr is False else f" (it is {e['input']!r})")
            for e in error.errors()
        ]
        raise SettingsError("settings: " + "; ".join(problems)) from None
