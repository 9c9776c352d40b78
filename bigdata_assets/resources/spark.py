"""Spark over Spark Connect: one client session per step, opened when first used and always stopped."""

import os
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

import dagster as dg
from dagster_pyspark import PySparkResource
from pydantic import Field, PrivateAttr

from bigdata_assets import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


SESSION_CONFIGURATION = {
    # One meaning of a timestamp everywhere: the instant, shown in UTC.
    "spark.sql.session.timeZone": "UTC",
    # As Delta keeps timestamps, not as Hive once did.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # In Spark 4.2.0 a scalar Python UDF over a Parquet scan waits for ever with it (SPARK-58241).
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
    # What a Python worker is handed at once, and one row: 10,000 pictures, the default, are more than its memory.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(32 * 2**20),
}


def _plaintext_channel(address: str) -> Any:
    """Sends the token although there is no TLS, as `use_ssl=false` in the address asks for.

    For a network that nobody else is on, such as that of containers: pyspark itself speaks TLS to every host but
    localhost as soon as there is a token, and retries for minutes where the server does not.
    """
    from pyspark.sql.connect.client.core import DefaultChannelBuilder

    class Plaintext(DefaultChannelBuilder):
        @property
        def secure(self) -> bool:
            return False

        def metadata(self) -> Iterable[tuple[str, str]]:
            token = [("authorization", f"Bearer {self.token}")] if self.token else []
            return [*super().metadata(), *token]

    return Plaintext(address)


class SparkUnreachableError(ConnectionError):
    """No Spark Connect server answers at the address."""


class SparkResource(PySparkResource):
    """A Spark Connect session for a step.

    A session takes .5 s against a warm server, so that one a step is cheap, and an asset that never asks for Spark
    pays nothing. dagster-pyspark's own resource opens its session eagerly and never stops it; two sessions that were
    not stopped hang the process at its exit.
    """

    remote: str = Field(
        description="Spark Connect address, such as sc://localhost:15002 or sc://host:15002/;use_ssl=true."
    )
    spark_config: dict[str, Any] = Field(default={}, description="Session configuration.")
    _session: Any = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Nothing yet: the session is opened by the first use of `spark_session`."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["SparkResource", None, None]:  # noqa: ARG002
        try:
            yield self
        finally:
            self.stop()

    @property
    def spark_session(self) -> "SparkSession":
        """The session of this resource.

        Raises:
            SparkUnreachableError: no server answers. The client alone would retry silently for over 40 s.
        """
        if self._session is None:
            from pyspark.sql.connect.client.retries import DefaultPolicy

            self._probe()
            session = self._open()
            # 20 s in all, where the client's own 8 minutes let a step hang silently whose server was killed: one that
            # comes back does not know the session.
            session.client.set_retry_policies([DefaultPolicy(max_retries=8, max_backoff=4_000)])
            try:
                for key, value in {**SESSION_CONFIGURATION, **self.spark_config}.items():
                    session.conf.set(key, value)
            except BaseException:
                session.release_session_on_close = False  # type: ignore[attr-defined]
                session.stop()
                raise
            self._session = session
        return self._session

    def _open(self) -> "SparkSession":
        if "use_ssl=false" not in self.remote.split(";"):
            from pyspark.sql import SparkSession

            return SparkSession.builder.remote(self._address()).create()
        from pyspark.sql.connect.session import SparkSession as RemoteSession

        # As `remote` does: functions such as `col` then make Connect's columns.
        os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
        builder = RemoteSession.builder.channelBuilder(_plaintext_channel(self._address()))
        return cast("SparkSession", builder.create())

    def stop(self) -> None:
        """Release the session on the server and close the connection; the next use opens a new one."""
        session, self._session = self._session, None
        if session is None:
            return
        try:
            self._probe()
        except SparkUnreachableError:
            # Releasing it on a dead server would retry for minutes; what is left to close is on this side.
            session.release_session_on_close = False
        session.stop()

    def _address(self) -> str:
        """With the token. In the environment it would be taken by all that this process starts, for any server."""
        if not (token := settings.load().token()):
            return self.remote
        remote = self.remote.rstrip("/")
        return f"{remote}{'' if ';' in remote else '/'};token={quote(token, safe='')}"

    def _probe(self) -> None:
        url = urlsplit(self.remote)
        address = (url.hostname or "", url.port or 15002)
        try:
            socket.create_connection(address, timeout=5).close()
        except OSError as error:
            raise SparkUnreachableError(
                f"No Spark Connect server answers at {self.remote} ({error}). "
                "Start the local one with `bigdata-assets services up`, or set SPARK_REMOTE to yours."
            ) from error
