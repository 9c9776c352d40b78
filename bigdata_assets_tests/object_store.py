"""An S3 server of the tests' own: s3proxy on loopback, over a folder; it asks for signed requests (SigV4)."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bigdata_assets.services.jars import Jar, fetch_all
from bigdata_assets.services.supervisor import die_with_parent, free_port, port_answers
from bigdata_assets.settings import Settings
from bigdata_assets_tests.conftest import wait_for

S3PROXY = Jar(
    "org.gaul",
    "s3proxy",
    "4.1.0",
    "a4d025969aaf796616ed4b1e2491d87d455ce84bb28cb9db086b2e6aaa68b48d",
    "jar-with-dependencies",
)
KEY, SECRET, BUCKET = "a-key-of-the-tests", "hush-hush-secret-of-the-tests", "lake"


class ObjectStore:
    """The server: it makes version N of an object only where it is told so, and takes one of two that are the first."""

    def __init__(self, port: int, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }

    def settings(self, base: Settings, prefix: str) -> Settings:
        """The same with a storage of its own in the bucket."""
        storage = {"BIGDATA_STORAGE": f"s3a://{BUCKET}/{prefix}"}
        loaded = Settings(**(base.environment() | storage | self.environment))
        return loaded.model_copy(update={"sources": base.sources})


@contextmanager
def object_store(folder: Path, jars: Path, latency_ms: int = 0) -> Iterator[ObjectStore]:
    """A running server with an empty bucket; `latency_ms` is added to every request."""
    (archive,) = fetch_all([S3PROXY], jars, "the tests' S3 server")
    (folder / "data" / BUCKET).mkdir(parents=True)
    port = free_port()
    properties = {
        "s3proxy.endpoint": f"http://127.0.0.1:{port}",
        "s3proxy.authorization": "aws-v4",
        "s3proxy.identity": KEY,
        "s3proxy.credential": SECRET,
        "s3proxy.ignore-unknown-headers": "true",
        "jclouds.provider": "filesystem-nio2",
        "jclouds.filesystem.basedir": str(folder / "data"),
    }
    if latency_ms:
        properties |= {"s3proxy.latency-blobstore.*.latency": str(latency_ms)}
    (folder / "s3proxy.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    with (folder / "s3proxy.log").open("wb") as log:
        command = ["java", "-Xmx256m", "-jar", str(archive), "--properties", str(folder / "s3proxy.properties")]
        server = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)  # noqa: PLW1509
    try:
        wait_for(lambda: port_answers(port) or server.poll() is not None, 60, "the S3 server answers")
        assert server.poll() is None, (folder / "s3proxy.log").read_text()
        yield ObjectStore(port, folder / "data" / BUCKET)
    finally:
        server.kill()
        server.wait()


@contextmanager
def environment(store: ObjectStore) -> Iterator[None]:
    """This process's own, as that of a step."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield
