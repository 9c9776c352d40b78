"""Partitions of the branch: lists of labelled URLs, and files of URLs to score, each named after its file."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from upath import UPath

from bigdata_assets.branch import Available
from bigdata_assets.malicious_urls.sample import write_landing_files
from bigdata_assets.malicious_urls.source import SOURCE
from bigdata_assets.malicious_urls.tables import SAFE_NAME
from bigdata_assets.sources import Sources, SourceUnavailableError
from bigdata_assets.storage import FileState, place, state, states

URL_LISTS = dg.DynamicPartitionsDefinition(name="url_lists")
LANDED_FILES = dg.DynamicPartitionsDefinition(name="landed_url_files")

FILE_NAME = re.compile(rf"{SAFE_NAME}\.(csv|csv\.gz|parquet)")
LOG = logging.getLogger(__name__)
UNFINISHED = re.compile(r"^[._]|\.(tmp|part|partial|crdownload|swp|filepart|inprogress)$|~$", re.IGNORECASE)
"""Names that programs give to a file which they are still writing."""


@dataclass(frozen=True)
class LandedFile:
    """A file in the landing folder as a listing shows it; another size or time means that it was written again."""

    name: str
    state: FileState

    @property
    def fingerprint(self) -> str:
        return self.state.version


def landed_file(path: UPath) -> LandedFile:
    """A file of the landing folder as it is now."""
    return LandedFile(path.name, state(path))


def landing_folder(storage: str) -> UPath:
    """Where files to score are put."""
    return place(storage) / "landing" / "urls"


def available(resources: Mapping[str, Any], instance: dg.DagsterInstance) -> Available:
    """Lists, and files that may be batches, added; of the sample a few are put first into a folder of our own."""
    settings = resources["settings"]
    lists = available_lists(resources["sources"])
    add_lists(instance, lists)
    folder = landing_folder(settings.storage)
    if settings.sources == "sample" and not folder.exists():
        if settings.storage_is_ours:
            write_landing_files(folder)
        else:
            LOG.warning("nothing invented is put into %s, which is yours: put files of URLs there", folder)
    elif settings.sources != "sample" and settings.storage_is_ours:
        folder.mkdir(parents=True, exist_ok=True)  # where to put files is seen
    names = [file.name for file in landed_files(folder)[0]]
    instance.add_dynamic_partitions(str(LANDED_FILES.name), names)
    return {URL_LISTS: lists, LANDED_FILES: names}


def available_lists(sources: Sources) -> list[str]:
    """Names of the lists that the input has; none where there is no input."""
    from bigdata_assets.malicious_urls.logic.lists import lists

    try:
        return list(lists(sources.folder(SOURCE)))
    except SourceUnavailableError as error:
        LOG.warning("%s", error)
        return []


def add_lists(instance: dg.DagsterInstance, found: Sequence[str]) -> None:
    """Make lists partitions. Those that the input has no more are none, and nothing learns from their rows any more."""
    instance.add_dynamic_partitions(str(URL_LISTS.name), found)
    known = set(instance.get_dynamic_partitions(str(URL_LISTS.name)))
    for name in sorted(known - set(found)) if found else []:
        LOG.warning(
            "the list %s is not among the sources any more: it is no partition of labelled_urls any more. "
            "Its rows stay there, and nothing learns from them",
            name,
        )
        instance.delete_dynamic_partition(str(URL_LISTS.name), name)


def landed_files(folder: UPath) -> tuple[list[LandedFile], list[str]]:
    """Files that may be batches, by name, and the names that cannot be one; unfinished ones are in neither."""
    files, refused = [], []
    for name, found in sorted(states(folder).items()):
        if UNFINISHED.search(name):
            continue
        if not FILE_NAME.fullmatch(name) or "..." in name or found is None:
            refused.append(name)
            continue
        files.append(LandedFile(name, found))
    return files, refused


def complete_files(
    files: Sequence[LandedFile], seen_before: Mapping[str, str], now_s: float, settle_s: float
) -> list[LandedFile]:
    """Files that nobody is writing to any more.

    A file counts as complete when two listings in a row show the same size and time and it was last written at least
    `settle_s` ago. A writer that pauses longer is caught all the same: the file's fingerprint then changes, and it is
    scored again.

    Args:
        files: the listing.
        seen_before: fingerprints by name from the listing before.
        now_s: present time, Unix seconds.
        settle_s: quiet time asked for.
    """
    return [
        file
        for file in files
        if seen_before.get(file.name) == file.fingerprint and now_s - file.state.modified_ns / 1e9 >= settle_s
    ]
