"""Engines that run in containers of their own: addresses, archives that nobody may write, a new node's first login."""

from types import SimpleNamespace

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.test_utils import create_run_for_test

from bigdata_assets import settings
from bigdata_assets.resources.keyspaces import CassandraError, CassandraLoginError
from bigdata_assets.services import cassandra, cli, jars, spark_connect, stack
from bigdata_assets.services.supervisor import ServiceError

JAR = jars.Jar("org.example", "empty", "1", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


@pytest.fixture
def read_only_jars(tmp_path, monkeypatch):
    monkeypatch.setattr(jars, "pinned", lambda: {"spark": [JAR]})
    folder = tmp_path / "jars"
    folder.mkdir()
    (folder / JAR.file_name).touch()
    monkeypatch.setattr(jars, "FileLock", lambda _: pytest.fail("a lock was taken in a folder that is complete"))
    return folder


def test_archives_of_an_image_are_used_as_they_are(read_only_jars):
    assert jars.fetch("spark", read_only_jars) == [read_only_jars / "empty-1.jar"]
    assert [path.name for path in read_only_jars.iterdir()] == ["empty-1.jar"]


@pytest.mark.parametrize(
    ("host", "listens_on"), [("127.0.0.1", "127.0.0.1"), ("spark", "0.0.0.0")], ids=["laptop", "container"]
)
def test_the_spark_server_listens_beyond_loopback_only_where_a_name_is_set(tmp_path, read_only_jars, host, listens_on):
    given = {"BIGDATA_SERVICES": str(tmp_path), "BIGDATA_JARS": str(read_only_jars), "SPARK_DRIVER_HOST": host}
    [server] = spark_connect.spark_connect(settings.load({**given, "SPARK_MASTER": "spark://master:7077"}))
    told = dict(part.split("=", 1) for part in server.command if part.startswith("spark.") and "=" in part)
    assert told["spark.connect.grpc.binding.address"] == told["spark.driver.bindAddress"] == listens_on
    assert told["spark.driver.host"] == host
    assert server.command[server.command.index("--master") + 1] == "spark://master:7077"


def test_archives_for_s3_are_sparks_only_where_the_storage_is_there(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(jars, "fetch", lambda engine, folder: asked.append(engine) or [folder / f"{engine}.jar"])
    monkeypatch.setattr(cli, "fetch", jars.fetch)
    for given in ({}, {"BIGDATA_STORAGE": "s3://lake/x", "AWS_REGION": "eu-central-1"}):
        monkeypatch.setattr(settings, "load", lambda given=given, load=settings.Settings: load(**given))
        [server] = spark_connect.spark_connect(settings.Settings(BIGDATA_SERVICES=tmp_path, **given))
        archives = server.command[server.command.index("--jars") + 1].split(",")
        assert [path.rpartition("/")[2] for path in archives] == (["spark.jar", "s3.jar"] if given else ["spark.jar"])
        asked.clear()
        assert CliRunner().invoke(cli.jars, catch_exceptions=False).exit_code == 0
        assert asked == ["spark", *(["s3"] if given else []), "kafka", "cassandra"]
    assert "spark.hadoop.fs.s3a.endpoint.region=eu-central-1" in server.command


def test_an_archive_may_have_a_classifier():
    jar = jars.Jar("org.example", "tool", "1", "0", "all")
    assert jar.file_name == "tool-1-all.jar"
    assert 'm:classifier="all"' in jars._ivy_xml([jar])
    assert "classifier" not in jars._ivy_xml([JAR])


class Node:
    """A new node: it lets in who has a role, at first `cassandra` alone, and remembers what was asked of it."""

    def __init__(self, login, roles):
        self.login, self.roles, self.asked = login, dict(roles), []

    def session(self, login=None):
        user, password = login or self.login
        node = self

        class Session:
            def __enter__(self):
                if node.roles.get(user) != password:
                    raise CassandraLoginError("no")
                return SimpleNamespace(execute=node.execute)

            def __exit__(self, *_):
                return None

        return Session()

    def execute(self, statement):
        self.asked.append(statement)
        if "WITH PASSWORD" in statement:
            self.roles[self.login[0]] = self.login[1]


@pytest.fixture
def node(monkeypatch):
    def make(login, roles=(cassandra.FIRST,)):
        made = Node(login, roles)
        monkeypatch.setattr(
            cassandra, "CassandraResource", SimpleNamespace(of=lambda _: SimpleNamespace(connection=lambda: made))
        )
        return made

    return make


def test_a_new_node_gets_our_user_before_its_own_is_closed(node):
    new = node(("big", "it's"))
    cassandra.take_over(settings.load({}))
    assert new.asked == [
        'CREATE ROLE IF NOT EXISTS "big" WITH SUPERUSER = true AND LOGIN = true',
        "ALTER ROLE \"big\" WITH PASSWORD = 'it''s'",
        "ALTER ROLE cassandra WITH SUPERUSER = false AND LOGIN = false",
    ]


def test_a_user_of_the_name_that_every_node_has_is_not_locked_out(node):
    new = node(("cassandra", "other"))
    cassandra.take_over(settings.load({}))
    assert not [statement for statement in new.asked if "LOGIN = false" in statement]


def test_a_node_that_takes_neither_login_is_left_alone(node, monkeypatch):
    monkeypatch.setattr(cassandra, "TAKE_OVER_S", 0)
    somebodys = node(("big", "x"), roles={("theirs", "y")})
    with pytest.raises(CassandraLoginError):
        cassandra.take_over(settings.load({}))
    assert somebodys.asked == []


def test_without_a_user_there_is_nothing_to_make(node):
    node(None)
    with pytest.raises(CassandraError, match="CASSANDRA_USERNAME"):
        cassandra.take_over(settings.load({}))


@pytest.fixture
def become(monkeypatch):
    """What a command becomes: its arguments and environment."""
    became = []
    monkeypatch.setattr(cli.os, "execvpe", lambda _, command, environment: became.append((command, environment)))
    return became


def test_the_code_server_has_the_runs_of_its_last_life_ended_beside_it(become, monkeypatch, tmp_path):
    beside = []
    monkeypatch.setattr(
        cli.multiprocessing,
        "Process",
        lambda target, args: SimpleNamespace(start=lambda: beside.append((target, *args[1:]))),
    )
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    stack.prepare_dagster_home(settings.load({"DAGSTER_HOME": str(tmp_path)}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run_id = create_run_for_test(instance, "left", status=dg.DagsterRunStatus.STARTED).run_id
    CliRunner().invoke(cli.services, ["code-server", "--host", "0.0.0.0"], catch_exceptions=False)
    [(command, environment)] = become
    assert beside == [(stack.end_runs_once_served, 4000, [run_id])]
    assert " ".join(command[1:]).startswith("-m dagster api grpc -h 0.0.0.0 -p 4000 -m bigdata_assets.definitions")
    assert environment["DAGSTER_HOME"] == str(tmp_path)


def test_runs_are_ended_once_the_code_server_serves_and_no_others(monkeypatch, tmp_path):
    """A failed run is tried again once: before there is a code server, in vain."""
    loaded = settings.load({"DAGSTER_HOME": str(tmp_path)})
    stack.prepare_dagster_home(loaded)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        left, newer = (create_run_for_test(instance, "job", status=dg.DagsterRunStatus.STARTED).run_id for _ in "ab")

        def statuses():
            return [instance.get_run_by_id(run_id).status.value for run_id in (left, newer)]

        answers, seen = [False, True], []
        monkeypatch.setattr(stack, "_code_server_answers", lambda _: [seen.append(statuses()), answers.pop(0)][1])
        stack.end_runs_once_served(loaded, 4000, [left])
        assert seen == [["STARTED", "STARTED"]] * 2
        assert statuses() == ["FAILURE", "STARTED"]


def test_the_spark_server_is_one_process_and_has_no_address_of_another(become, read_only_jars, monkeypatch, tmp_path):
    given = {"BIGDATA_SERVICES": str(tmp_path), "BIGDATA_JARS": str(read_only_jars), "SPARK_REMOTE": "sc://localhost:1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    CliRunner().invoke(cli.services, ["spark"], catch_exceptions=False)
    [(command, environment)] = become
    assert command[0].endswith("spark-submit")
    assert "SPARK_REMOTE" not in environment
    monkeypatch.setenv("SPARK_MASTER", "standalone")
    assert isinstance(CliRunner().invoke(cli.services, ["spark"]).exception, ServiceError)
    assert len(become) == 1
