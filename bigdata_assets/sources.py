"""Where inputs come from: a generated sample, the publishers, or a folder with the official files.

One layout serves all three: a branch's folder holds the publisher's own file names, and the branch's loader reads it.
"""

import importlib
import shutil
import tempfile
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import dagster as dg
from filelock import FileLock
from pydantic import Field


class SourceUnavailableError(RuntimeError):
    """The input cannot be had; the message says how to get it."""


@dataclass(frozen=True)
class Source:
    """The input files of a branch.

    Attributes:
        branch: its name, and that of the folder with the files.
        sample: module that makes a sample of them: `write_sample(folder)` and `VERSION`.
        zenodo: DOI of the record that the publisher's files are downloaded from, with their checksums, and their names.
        urls: the publisher's addresses of files, where no checksums are to be had.
        by_hand: how to get them into `{folder}` where no program may fetch them on its own.
    """

    branch: str
    sample: str
    zenodo: tuple[str, Sequence[str]] | None = None
    urls: Sequence[str] = ()
    by_hand: str = ""


SAMPLE_EFFORT = "So few because the inputs are generated: figures of the sample mean nothing."


class Sources(dg.ConfigurableResource):
    """Finds the folder with a branch's input files."""

    location: str = Field(description="`sample`, `official`, or a folder with one sub-folder per branch.")
    cache: str = Field(description="Folder where samples and downloads are kept.")
    sample_refusal: str = Field("", description="Why the sample may not be used; empty where it may.")

    @property
    def is_sample(self) -> bool:
        """Whether the inputs are generated: scores on them mean nothing."""
        return self.location == "sample"

    def lacks(self, source: Source) -> bool:
        """Whether these are a folder that has none of a branch."""
        return self.location not in ("sample", "official") and not (Path(self.location) / source.branch).is_dir()

    def effort(self, asked: int | None, usual: int, few: int = 1) -> int:
        """How many repeats, folds or epochs a report makes: as asked, else as many as the inputs deserve."""
        return asked or (few if self.is_sample else usual)

    def effort_told(self, *asked: int | None) -> str:
        """A sentence for the report where `effort` has made them few."""
        return SAMPLE_EFFORT if self.is_sample and None in asked else ""

    def folder(self, source: Source, download: bool = True, only: Container[str] | None = None) -> Path:
        """The folder with the files of a branch, generated or downloaded first where that is asked for.

        Args:
            source: what files these are.
            download: without it, the folder as it is, for who only looks what has come.
            only: of the source's `urls`, those to download; None: all.

        Raises:
            SourceUnavailableError: there is no such folder, or the files can only be got by hand.
        """
        if self.is_sample:
            if self.sample_refusal:
                raise SourceUnavailableError(self.sample_refusal)
            return self._sample(source)
        if self.location == "official":
            return self._official(source, download, only)
        folder = Path(self.location) / source.branch
        if not folder.is_dir():
            raise SourceUnavailableError(f"BIGDATA_SOURCES is {self.location}, which has no folder {source.branch!r}.")
        return folder

    def _sample(self, source: Source) -> Path:
        sample = importlib.import_module(source.sample)
        folder = Path(self.cache) / f"sample-{sample.VERSION}" / source.branch
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                # Made aside and moved, so that a sample that was cut off in the making is never taken for a whole one.
                aside = Path(tempfile.mkdtemp(prefix=f".{source.branch}-", dir=folder.parent))
                click.echo(f"making the sample of {source.branch} ...", err=True)
                began = time.monotonic()
                try:
                    sample.write_sample(aside)
                    aside.rename(folder)
                    click.echo(f"  {time.monotonic() - began:6.1f} s", err=True)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
        return folder

    def _official(self, source: Source, download: bool, only: Container[str] | None) -> Path:
        folder = Path(self.cache) / "official" / source.branch
        folder.mkdir(parents=True, exist_ok=True)
        if download and source.by_hand and not any(folder.iterdir()):
            raise SourceUnavailableError(source.by_hand.format(folder=folder))
        if download and source.zenodo:
            with FileLock(f"{folder}.lock"):
                _download(*source.zenodo, folder)
        for url in source.urls if download else ():
            if only is None or url in only:
                with FileLock(f"{folder}.lock"):
                    _fetch(url, folder)
        return folder


def _fetch(url: str, folder: Path) -> None:
    """Fetch a file that is not there yet; it is seen whole or not at all."""
    import pooch
    import requests

    name = url.rpartition("/")[2]
    if (folder / name).is_file():
        return
    try:
        pooch.retrieve(url, known_hash=None, fname=name, path=folder, progressbar=True)
    except (requests.RequestException, ValueError, OSError) as error:
        raise SourceUnavailableError(
            f"{url} could not be downloaded: {error}. Run this again, or download it by hand into {folder}."
        ) from error


def _download(doi: str, names: Sequence[str], folder: Path) -> None:
    """Fetch the files of a Zenodo record that are not there yet; each is seen whole, and checked, or not at all."""
    import pooch
    import requests

    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return
    try:
        record = pooch.create(path=folder, base_url=f"doi:{doi}/")
        record.load_registry_from_doi()
        for name in missing:
            record.fetch(name, progressbar=True)
    except (requests.RequestException, ValueError, OSError) as error:
        raise SourceUnavailableError(
            f"{', '.join(missing)} of doi.org/{doi} could not be downloaded: {error}. Run this again, or download by "
            f"hand into {folder}."
        ) from error
