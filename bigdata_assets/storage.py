"""BIGDATA_STORAGE as each library is to be told of it: a folder, or a bucket of S3 or of what speaks as S3 does.

Keys come from the environment alone, where fsspec, deltalake and Spark find them by themselves: none is in an option.

Workers import this module: it never imports dagster.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from bigdata_assets import settings

CONNECT_S, ANSWER_S = 3, 6
"""What is waited for a connection, and for the first answer."""
LOOKED_AT_S = 60
"""For how long a storage that has answered is not asked again."""
BLOCK_BYTES = 8 << 20
"""Of a file that are read ahead, and written at once: fsspec's own 50 MB are thrice what a task reads of a file."""
REFUSED = {
    "InvalidAccessKeyId": "does not know AWS_ACCESS_KEY_ID: set it to a key of that server",
    "SignatureDoesNotMatch": "does not take the signature: AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID",
    "AccessDenied": "gives AWS_ACCESS_KEY_ID no access: let it list, read, write and delete there",
    "NoSuchBucket": "has no such bucket: make it, or correct BIGDATA_STORAGE",
    "PermanentRedirect": "has that bucket in another region: set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "has that bucket in another region: set AWS_REGION to it",
}
"""What a server's error codes mean."""
_answered: dict[str, float] = {}


class StorageError(RuntimeError):
    """The storage cannot be used; the message says which, why, and what to do."""


class StorageUnreachableError(StorageError):
    """It does not answer: what failed by it is tried again, and that is no attempt of it."""


@dataclass(frozen=True)
class FileState:
    """By what one version of a file is told from another."""

    size_bytes: int
    modified_ns: int
    etag: str | None = None
    """Of an object: its times are to the second, and may be others in a listing than of the object itself."""

    @property
    def version(self) -> str:
        return f"{self.size_bytes}-{self.etag or self.modified_ns}"


def state(path: Path | UPath) -> FileState:
    """A file as it is now.

    Raises:
        FileNotFoundError: it is not there.
    """
    status = path.stat()
    info = status.as_info() if hasattr(status, "as_info") else {}
    return FileState(status.st_size, status.st_mtime_ns, _etag(info))


def states(folder: UPath) -> dict[str, FileState | None]:
    """What is in a folder, by name; None of what is no file. Of S3 by one listing: there may be thousands."""
    if _is_s3(str(folder)):
        found = folder.fs.ls(folder.path, detail=True) if folder.exists() else []
        # An object store's console leaves an empty object in the name of the folder itself.
        others = [info for info in found if info["name"].rstrip("/") != folder.path]
        return {info["name"].rpartition("/")[2]: _listed(info) for info in others}
    return {path.name: state(path) if path.is_file() else None for path in folder.iterdir()} if folder.exists() else {}


def _listed(info: Mapping[str, Any]) -> FileState | None:
    if info["type"] != "file":
        return None
    return FileState(info["size"], int(info["LastModified"].timestamp() * 1e9), _etag(info))


def _etag(info: Mapping[str, Any]) -> str | None:
    return next((str(value).strip('"') for name, value in info.items() if name.lower() == "etag"), None)


def place(location: str) -> UPath:
    """A folder or file of the storage.

    Raises:
        StorageError: the storage is on S3 and does not let us in, or does not answer.
    """
    if not _is_s3(location):
        return UPath(location)
    path = UPath(location, **_s3_options())
    _look_at(path)
    return path


def delta_place(location: str) -> tuple[str, dict[str, str]]:
    """The same as the deltalake library names it, which knows s3://, not Hadoop's s3a://, and its options to reach it.

    Raises:
        StorageError: as of `place`.
    """
    if not _is_s3(location):
        return location, {}
    place(location)
    # Of two commits of one version the store takes the first: what no setting of the environment may take away.
    options = {"region": settings.s3_region(), "conditional_put": "etag", "aws_s3_allow_unsafe_rename": "false"}
    if endpoint := settings.s3_endpoint():
        options |= {"endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
    return "s3://" + location.partition("://")[2], options


def spark_configuration(of: settings.Settings, scratch: Path) -> dict[str, str]:
    """Of the Spark server: how it reaches the storage. Keys it takes from its environment, as its workers do.

    `fs.s3a.performance.flags` stays as it is: with `create` in it, what creates a file overwrites one.

    Args:
        of: the server.
        scratch: where its own machine has room for parts of files that are being written; executors elsewhere have it
            in their folders for temporary files.
    """
    if not of.storage_is_s3:
        return {}
    told = {"endpoint.region": of.aws_region}
    if of.spark_master.startswith(("local", "standalone")):
        told["buffer.dir"] = str(scratch / "s3a")
    if of.aws_endpoint_url:
        told |= {"endpoint": of.aws_endpoint_url, "path.style.access": "true"}
    return {f"spark.hadoop.fs.s3a.{name}": value for name, value in told.items()}


def make_parents(path: UPath) -> None:
    """Make the folders that a file is to be in; object stores have none, and fsspec would make a missing bucket."""
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def remove(folder: UPath) -> None:
    """Remove a folder with all below it, by its name: fsspec would take `*`, `?` and `[` in that for a pattern.

    What another one removes meanwhile is no error.
    """
    if _is_s3(str(folder)):
        _remove_objects(folder)
        return
    with contextlib.suppress(FileNotFoundError):
        if is_local(folder):
            folder.fs.rm(folder.path, recursive=True)
            return
        for name in folder.fs.find(folder.path):
            folder.fs.rm_file(name)


def _remove_objects(folder: UPath) -> None:
    """Those below a folder of S3, with the empty ones by which Spark marks folders and which fsspec hides."""
    bucket, _, key = folder.path.partition("/")
    ask = {"Bucket": bucket, "Prefix": f"{key}/"}
    while True:
        page = folder.fs.call_s3("list_objects_v2", **ask)
        if found := [{"Key": entry["Key"]} for entry in page.get("Contents", ())]:
            told = folder.fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": found, "Quiet": True})
            if told.get("Errors"):
                raise PermissionError(f"{folder}: {told['Errors'][0]}")
        if not page["IsTruncated"]:
            return
        ask["ContinuationToken"] = page["NextContinuationToken"]


def check(location: str) -> None:
    """Look whether the storage can be used, before anything is begun.

    Raises:
        StorageError: as of `place`.
    """
    place(location)


def is_local(path: UPath) -> bool:
    """Whether a place is of this machine's file system."""
    return path.protocol in ("", "file")


def _is_s3(location: str) -> bool:
    return location.startswith(("s3a://", "s3://"))


def _s3_options() -> dict[str, Any]:
    return {
        # Or a process that lives long never sees what others have written.
        "use_listings_cache": False,
        "default_block_size": BLOCK_BYTES,
        "endpoint_url": settings.s3_endpoint(),
        "client_kwargs": {"region_name": settings.s3_region()},
        "config_kwargs": {"connect_timeout": CONNECT_S, "read_timeout": 30, "retries": {"max_attempts": 2}},
    }


def _look_at(path: UPath) -> None:
    """Ask for one name, at most once in LOOKED_AT_S, since every library's own retries take minutes to tell nothing."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from fsspec.asyn import sync
    from fsspec.exceptions import FSTimeoutError

    fs, (bucket, _, key) = path.fs, path.path.partition("/")
    now = time.monotonic()
    if now - _answered.get(bucket, -LOOKED_AT_S) < LOOKED_AT_S:
        return
    where = f"s3a://{bucket} at {settings.s3_endpoint() or 'Amazon S3, ' + settings.s3_region()}"
    ask = {"Bucket": bucket, "Prefix": key and f"{key}/", "MaxKeys": 1}
    try:
        sync(fs.loop, fs._call_s3, "list_objects_v2", timeout=ANSWER_S, **ask)
    except (FSTimeoutError, TimeoutError) as error:
        why = f"no answer within {ANSWER_S} s"
        raise StorageUnreachableError(f"{where}: {why}. Correct AWS_ENDPOINT_URL, or start it.") from error
    except NoCredentialsError as error:
        raise StorageError(f"{where}: no key. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") from error
    except BotoCoreError as error:
        why = f"is not reached: {error}"
        raise StorageUnreachableError(f"{where} {why}. Correct AWS_ENDPOINT_URL, or start it.") from error
    except OSError as error:
        cause = error.__cause__
        code = cause.response.get("Error", {}).get("Code", "") if isinstance(cause, ClientError) else ""
        raise StorageError(f"{where} {REFUSED.get(code, f'refuses to list it: {code} {error}')}.") from error
    _answered[bucket] = now
