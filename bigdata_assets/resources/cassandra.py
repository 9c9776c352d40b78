"""Cassandra as a resource; what is asked of it is in keyspaces.py."""

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from bigdata_assets import settings as settings_module
from bigdata_assets.resources.keyspaces import Connection, Keyspace


class CassandraResource(dg.ConfigurableResource):
    """A Cassandra cluster; how to log in comes from the environment at the moment of use and is in no configuration."""

    hosts: list[str] = Field(description="Nodes to ask first.")
    port: int = Field(description="Of all nodes.")
    keyspace: str = Field(description="Of the sensors' tables.")

    @classmethod
    def of(cls, settings: settings_module.Settings) -> "CassandraResource":
        """The cluster that the settings name."""
        return cls(hosts=settings.cassandra_hosts, port=settings.cassandra_port, keyspace=settings.cassandra_keyspace)

    def connection(self) -> Connection:
        """With the login as it is now."""
        settings = settings_module.load()
        ca_file = str(settings.cassandra_ca_file) if settings.cassandra_ca_file else None
        login = settings.cassandra_login()
        return Connection(tuple(self.hosts), self.port, self.keyspace, settings.cassandra_data_centre, ca_file, login)

    @contextmanager
    def keyspace_session(self) -> Generator[Keyspace, None, None]:
        """The keyspace's tables over a session; what is raised is `Connection.session`'s."""
        connection = self.connection()
        with connection.session() as session:
            yield Keyspace(session, connection.keyspace)
