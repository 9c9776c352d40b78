"""The local Cassandra node: on loopback, behind a password that is made at its first start."""

import contextlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.keyspaces import CassandraError, CassandraLoginError, Keyspace
from bigdata_assets.services import jars, secret, template
from bigdata_assets.services.supervisor import POLL_S, Process, free_port, port_answers
from bigdata_assets.settings import OWN_CASSANDRA_USER, Settings

FLAGS = (
    "-Xss512k -Xms512m -Xmx512m -XX:MaxDirectMemorySize=512m -XX:+UseG1GC -XX:+ParallelRefProcEnabled"
    " -XX:MaxGCPauseMillis=300 -XX:+ExitOnOutOfMemoryError -XX:+PerfDisableSharedMem -Djava.net.preferIPv4Stack=true"
    " -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true"
    # Without the libraries of each machine, which are as large as all the rest.
    " -Dio.netty.transport.noNative=true -Dcassandra.native.epoll.enabled=false"
).split()
EXPORTS = (
    "java.base/jdk.internal.misc java.base/java.lang.ref java.management.rmi/com.sun.jmx.remote.internal.rmi"
    " java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.sql/java.sql jdk.unsupported/sun.misc"
).split()
OPENS = (
    "java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect"
    " java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar java.base/sun.nio.ch"
    " java.base/java.io java.base/java.nio java.base/java.lang java.base/java.lang.reflect java.base/java.util"
    " java.base/java.util.concurrent java.base/java.util.concurrent.atomic"
    " jdk.management/com.sun.management.internal"
).split()
"""What Cassandra reaches into; without these it ends at once on Java 17."""
ALONE = (
    "ring_delay_ms=100 skip_wait_for_gossip_to_settle=0 superuser_setup_delay_ms=0 shutdown_announce_in_ms=0".split()
)
"""It waits for no other node."""
FIRST = ("cassandra", "cassandra")
"""What a new node lets in."""
CLOSE_FIRST = f"ALTER ROLE {FIRST[0]} WITH SUPERUSER = false AND LOGIN = false"
TAKE_OVER_S = 90
"""A new node makes its first login seconds after it has begun to answer."""


def cassandra(settings: Settings) -> Process:
    """The node as a process to keep up; its jars are fetched and its configuration is written here."""
    jars.require_java()
    folder = settings.services_dir / "cassandra"
    folder.mkdir(parents=True, exist_ok=True)
    secret(settings.cassandra_password_file)
    paths = jars.fetch("cassandra", settings.jars_dir)
    agent = next(path for path in paths if path.name.startswith("jamm-"))
    configuration, logging = folder / "cassandra.yaml", folder / "logback.xml"
    names = ("data", "commitlog", "saved_caches", "hints", "cdc_raw")
    configuration.write_text(
        template(
            "cassandra.yaml",
            port=settings.cassandra_port,
            storage_port=free_port(),
            ssl_storage_port=free_port(),
            cluster=json.dumps(_cluster_name(folder)),
            **{name: json.dumps(str(folder / name)) for name in names},
        )
    )
    logging.write_text(template("logback.xml"))
    properties = [
        f"-Dlogback.configurationFile={logging}",
        f"-Dbigdata.log={settings.services_dir / 'logs' / 'cassandra-server.log'}",
        f"-Dcassandra.config={configuration.as_uri()}",
        f"-Dcassandra.storagedir={folder}",
        "-Dcassandra-foreground=yes",
        *(f"-Dcassandra.{name}" for name in ALONE),
    ]
    reached = [
        f"--add-{how}={what}=ALL-UNNAMED" for how, all_ in (("exports", EXPORTS), ("opens", OPENS)) for what in all_
    ]
    class_path = ":".join(map(str, paths))
    return Process(
        name="cassandra",
        command=[
            *("java", *FLAGS, *reached, f"-javaagent:{agent}", *properties),
            *("-cp", class_path, "org.apache.cassandra.service.CassandraDaemon"),
        ],
        ready=lambda: _answers(settings),
        port=settings.cassandra_port,
        port_setting="CASSANDRA_CONTACT_POINTS (as localhost:PORT)",
    )


def _cluster_name(folder: Path) -> str:
    """What tells this node from another one that answers at its address."""
    path = folder / "cluster"
    if not path.exists():
        path.write_text(f"bigdata_assets {uuid.uuid4().hex}")
    return path.read_text()


def _answers(settings: Settings) -> bool:
    """Whether the node answers a query; at the first time, after its login has been changed to ours."""
    if not port_answers(settings.cassandra_port):
        return False
    own = CassandraResource.of(settings).connection()
    try:
        with own.session() as session:
            _refuse_another(session, settings)
            # Whatever a kill has left undone: the login that every new node has goes last.
            session.execute(CLOSE_FIRST)
    except CassandraLoginError:
        with contextlib.suppress(CassandraError), own.session(FIRST) as session:
            _refuse_another(session, settings)
            _make_role(session, OWN_CASSANDRA_USER, secret(settings.cassandra_password_file))
        return False
    except CassandraError:
        return False
    return True


def take_over(settings: Settings) -> None:
    """Make the user of the settings on a new node elsewhere, and close the login that every new node has.

    Raises:
        CassandraError: the node is not there, or takes neither login within TAKE_OVER_S: it is somebody's.
    """
    node = CassandraResource.of(settings).connection()
    if node.login is None:
        raise CassandraError("CASSANDRA_USERNAME and CASSANDRA_PASSWORD say which user to make, and are not set")
    deadline = time.monotonic() + TAKE_OVER_S
    while True:
        try:
            with node.session() as session:
                if node.login[0] != FIRST[0]:
                    session.execute(CLOSE_FIRST)
            return
        except CassandraLoginError:
            if time.monotonic() > deadline:
                raise
        with contextlib.suppress(CassandraLoginError), node.session(FIRST) as session:
            _make_role(session, *node.login)
        time.sleep(POLL_S)


def _make_role(session: Any, user: str, password: str) -> None:
    """A superuser: once the login of a new node is closed there is no other. A password is a literal in CQL."""
    role, literal = user.replace('"', '""'), password.replace("'", "''")
    session.execute(f'CREATE ROLE IF NOT EXISTS "{role}" WITH SUPERUSER = true AND LOGIN = true')
    session.execute(f"ALTER ROLE \"{role}\" WITH PASSWORD = '{literal}'")


def _refuse_another(session: Any, settings: Settings) -> None:
    """A node that took the port in the meantime is somebody's, whose roles are not ours to change."""
    if Keyspace(session, settings.cassandra_keyspace).cluster_name() != settings.own_cassandra_cluster:
        raise CassandraError(f"what answers at {settings.cassandra_points} is not the node that was started here")
