"""Which runs to ask for of partitions that are files: each version of a file is made once, whoever asks for it."""

from collections.abc import Iterator, Mapping

import dagster as dg

from bigdata_assets.runs.interruptions import NO_OTHER_RETRY, is_to_be_tried, runs_by_tag
from bigdata_assets.runs.ranges import in_work, is_made_of

MAX_ATTEMPTS = 3
"""A file whose runs keep failing is left to the reader of the run's log; it can still be run by hand."""
MAX_RUNS_PER_TICK = 10


def file_requests(
    instance: dg.DagsterInstance, tag: str, versions: Mapping[str, str], read: dg.AssetKey, made: dg.AssetKey
) -> list[dg.RunRequest]:
    """Runs of files that have none, or have failed; those that others have made or are to make are left alone.

    A run key that was used is never launched again, even if that run failed: the attempt's number is part of it.

    Args:
        instance: Dagster's own storage.
        tag: of such runs, with file and version for a value.
        versions: of each file, by partition key.
        read: the asset whose partition holds a file's rows, and says its version.
        made: the asset that is made last.
    """

    def requests() -> Iterator[dg.RunRequest]:
        for key, identity in identities.items():
            runs = known[identity]
            if key in busy or not is_to_be_tried(instance, runs, MAX_ATTEMPTS):
                continue
            if not is_made_of(instance, read, made, key, versions[key]):
                tags = {tag: identity} | NO_OTHER_RETRY
                yield dg.RunRequest(f"{identity}:{len(runs)}", partition_key=key, tags=tags)

    busy = in_work(instance, list(versions))
    identities = {key: f"{key}:{version}" for key, version in versions.items()}
    known = runs_by_tag(instance, tag, list(identities.values()))
    return [request for request, _ in zip(requests(), range(MAX_RUNS_PER_TICK), strict=False)]
