from pathlib import Path
from types import SimpleNamespace

import pytest

from bigdata_assets import settings, storage


def test_defaults_need_no_environment():
    loaded = settings.load({})
    assert loaded.sources == "sample"
    assert loaded.spark_port == 15002
    assert loaded.spark_is_local


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BIGDATA_SOURCES", "/no/such/folder"),
        ("SPARK_REMOTE", "localhost:15002"),
        ("SPARK_REMOTE", "sc://127.0.0.1:15002"),
        ("DAGSTER_WEBSERVER_PORT", "http"),
        ("DAGSTER_WEBSERVER_PORT", "70000"),
        ("SPARK_DRIVER_MEMORY", "lots"),
        ("ALERT_WEBHOOK_URL", "file:///etc/passwd"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,b"),
        ("CASSANDRA_CONTACT_POINTS", "a:1,b:2"),
        ("CASSANDRA_CONTACT_POINTS", "a b"),
        ("CASSANDRA_KEYSPACE", "x; DROP"),
        ("CASSANDRA_REPLICATION", "dc=1'"),
        ("FLOW_SENSORS_WINDOW", "1"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_CRIMES_TOPIC", "crímenes"),
        ("BATCH_ROWS", "0"),
        ("MAX_CONCURRENT", "0"),
        ("SPARK_MASTER", "yarn; rm"),
        ("SPARK_MASTER", "k8s://cluster:6443"),
        ("SPARK_DRIVER_HOST", "spark 1"),
        ("BIGDATA_STORAGE", "s3a:///folder"),
        ("BIGDATA_STORAGE", "s3://bucket/a*"),
        ("AWS_REGION", "Frankfurt am Main"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000"),
    ],
)
def test_a_bad_value_is_named(name, value):
    with pytest.raises(settings.SettingsError, match=name):
        settings.load({name: value})


def test_all_bad_values_are_named_at_once():
    with pytest.raises(settings.SettingsError, match=r"BIGDATA_SOURCES.*SPARK_REMOTE"):
        settings.load({"BIGDATA_SOURCES": "/no/such", "SPARK_REMOTE": "x"})


def test_secrets_are_not_shown():
    secret = "hush-hush"
    names = "SPARK_CONNECT_AUTHENTICATE_TOKEN KAFKA_SECURITY_PASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY".split()
    loaded = settings.load(dict.fromkeys(names, secret) | {"ALERT_WEBHOOK_URL": f"https://a/{secret}"})
    assert secret not in repr(loaded)
    with pytest.raises(settings.SettingsError) as raised:
        settings.load({"ALERT_WEBHOOK_URL": f"ftp://{secret}"})
    assert secret not in str(raised.value)


def test_settings_survive_the_way_through_an_environment(tmp_path):
    loaded = settings.load(
        {"BIGDATA_SOURCES": str(tmp_path), "BIGDATA_REPORTS_URL": "", "BIGDATA_STORAGE": "s3a://b/x/"}
    )
    assert settings.load(loaded.environment()) == loaded
    assert loaded.storage == "s3a://b/x"


def test_a_storage_on_s3_has_one_name_and_takes_what_amazons_variables_say():
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "http://127.0.0.1:9/"}
    loaded = settings.load({"BIGDATA_STORAGE": "s3://lake/x/", **keys})
    assert loaded.storage == "s3a://lake/x"
    assert keys.keys() < loaded.environment().keys()
    assert settings.load(loaded.environment()) == loaded
    told = storage.spark_configuration(loaded, Path())
    assert told["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9"
    assert not {"key", "secret"} & set(told.values())
    # Of an account that has nothing to do with us.
    beside = settings.load({"BIGDATA_STORAGE": "/data/lake", "AWS_ACCESS_KEY_ID": "key"})
    assert not [name for name in beside.environment() if name.startswith("AWS_")]
    assert storage.spark_configuration(beside, Path()) == {}


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_key_is_named(name):
    with pytest.raises(settings.SettingsError, match="AWS_SECRET_ACCESS_KEY: is set or unset together with") as told:
        settings.load({"BIGDATA_STORAGE": "s3://lake", name: "hush-hush"})
    assert "hush-hush" not in str(told.value)


def test_each_stream_has_a_topic_of_its_own_setting():
    loaded = settings.load({"KAFKA_CRIMES_TOPIC": "crimes.v2", "KAFKA_FLOW_SENSORS_TOPIC": "", "KAFKA_TOPIC": "no"})
    assert loaded.topics == {"crimes": "crimes.v2"}
    assert [loaded.topic(name) for name in ("crimes", "flow_sensors")] == ["crimes.v2", "flow-sensors"]
    assert settings.load(loaded.environment()) == loaded


def test_which_kafka_is_started_here():
    cases = {"localhost:9": True, "127.0.0.1:9": True, "kafka:9": False, "localhost:9,localhost:10": False}
    for servers, local in cases.items():
        assert settings.load({"KAFKA_BOOTSTRAP_SERVERS": servers}).kafka_is_local is local


def test_which_cassandra_is_started_here():
    cases = {"localhost": True, "127.0.0.1:9043": True, "cassandra.example": False, "localhost,other": False}
    for points, local in cases.items():
        loaded = settings.load({"CASSANDRA_CONTACT_POINTS": points})
        assert loaded.cassandra_is_local is local
        assert loaded.cassandra_port == (9043 if "9043" in points else 9042)
    assert not settings.load({"CASSANDRA_USERNAME": "me"}).cassandra_is_local
    assert settings.load({"CASSANDRA_CONTACT_POINTS": "[::1]:9044,db"}).cassandra_hosts == ["::1", "db"]
    mine = settings.load({"CASSANDRA_USERNAME": "me", "CASSANDRA_PASSWORD": "secret"})
    assert mine.cassandra_login() == ("me", "secret")
    assert "secret" not in repr(mine)


def test_an_empty_variable_means_the_default():
    assert settings.load({"SPARK_REMOTE": ""}).spark_remote == settings.load({}).spark_remote


def test_relative_folders_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert settings.load({"BIGDATA_STORAGE": "here"}).storage == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({}, True),
        ({"BIGDATA_SERVICES": "/fast/engines"}, True),
        ({"BIGDATA_SERVICES": "/own/services", "BIGDATA_STORAGE": "/own/storage"}, True),
        ({"BIGDATA_SERVICES": "/data/engines", "BIGDATA_STORAGE": "/data/lake"}, False),
        ({"BIGDATA_SERVICES": "/services", "BIGDATA_STORAGE": "/anything"}, False),
        ({"BIGDATA_STORAGE": "/data/lake"}, False),
        ({"BIGDATA_STORAGE": "s3a://lake"}, False),
    ],
)
def test_the_sample_fills_no_storage_of_the_users_unasked(given, ours):
    assert settings.load(given).storage_is_ours == ours
    assert bool(settings.load(given).sample_refusal) != ours
    assert not settings.load(given | {"BIGDATA_SOURCES": "sample"}).sample_refusal


@pytest.mark.parametrize(
    ("cores", "memory_gb", "most"), [(1, 4, 2), (2, 24, 2), (2, 500, 2), (8, 64, 4), (64, 16, 2), (64, 256, 4)]
)
def test_as_much_at_once_as_fits_the_machine(monkeypatch, cores, memory_gb, most):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=memory_gb * 10**9))
    assert settings.load({}).max_concurrent == most
    assert settings.load({"MAX_CONCURRENT": "7"}).max_concurrent == 7


def test_what_was_not_given_is_not_given_to_processes_either():
    assert {"BIGDATA_SOURCES", "KAFKA_BOOTSTRAP_SERVERS"}.isdisjoint(settings.load({}).environment())
    given = {"BIGDATA_SOURCES": "sample", "KAFKA_BOOTSTRAP_SERVERS": "localhost:9092"}
    assert given.items() <= settings.load(given).environment().items()


def test_a_misspelt_setting_is_told():
    told = settings.misspelt(["BIGDATA_SOURCE", "BIGDATA_STORAGE", "BIGDATA_VERSION", "PATH", "KAFKA_CRIME_TOPIK"], [])
    assert told == ["BIGDATA_SOURCE is no setting; is BIGDATA_SOURCES meant?"]
    others = "SPARK_MASTER_HOST SPARK_HOME CASSANDRA_PORT AWS_ENDPOINT_URL_S3 AWS_SESSION_TOKEN"
    in_file = ["KAFKA_CRIMES_TOPIC", "BATCH_ROW", "JAVA_HOME", "BATCH_ROWS", *others.split()]
    assert settings.misspelt([], in_file) == ["BATCH_ROW is no setting; is BATCH_ROWS meant?"]
