"""Where inputs come from: a generated sample, the publishers, or a folder with the official files.

One layout serves all three: a branch's folder holds the publisher's own file names, and the branch's loader reads it.
"""

import importlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import dagster as dg
from filelock import FileLock
from pydantic import Field


class SourceUnavailableError(RuntimeError):
    """The input cannot be had; the message says how to get it."""


OFFICIAL_BY_HAND = {
    "malicious_urls": (
        "malicious_phish.csv is published at kaggle.com/datasets/sid321axn/malicious-urls-dataset and can only be "
        "downloaded with a Kaggle account: download it there, unpack it as {folder}/malicious_phish.csv, and run this "
        "again. Or set BIGDATA_SOURCES to a folder that has malicious_urls/malicious_phish.csv."
    ),
}
"""Files that no program may fetch on its own, by branch."""
ZENODO = {
    "gravitational_waves": ("10.5281/zenodo.1486046", ("trainingsetv1d1.h5", "trainingset_v1d1_metadata.csv")),
}
"""Records that files are downloaded from, with their checksums, by branch."""

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

    def effort(self, asked: int | None, usual: int, few: int = 1) -> int:
        """How many repeats, folds or epochs a report makes: as asked, else as many as the inputs deserve."""
        return asked or (few if self.is_sample else usual)

    def effort_told(self, *asked: int | None) -> str:
        """A sentence for the report where `effort` has made them few."""
        return SAMPLE_EFFORT if self.is_sample and None in asked else ""

    def folder(self, branch: str, download: bool = True) -> Path:
        """The folder with the files of a branch, generated or downloaded first where that is asked for.

        Args:
            branch: its name.
            download: without it, the folder as it is, for who only looks what has come.

        Raises:
            SourceUnavailableError: there is no such folder, or the files can only be got by hand.
        """
        if self.is_sample:
            if self.sample_refusal:
                raise SourceUnavailableError(self.sample_refusal)
            return self._sample(branch)
        if self.location == "official":
            return self._official(branch, download)
        folder = Path(self.location) / branch
        if not folder.is_dir():
            raise SourceUnavailableError(f"BIGDATA_SOURCES is {self.location}, which has no folder {branch!r}.")
        return folder

    def _sample(self, branch: str) -> Path:
        sample = importlib.import_module(f"bigdata_assets.{branch}.sample")
        folder = Path(self.cache) / f"sample-{sample.VERSION}" / branch
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                # Made aside and moved, so that a sample that was cut off in the making is never taken for a whole one.
                aside = Path(tempfile.mkdtemp(prefix=f".{branch}-", dir=folder.parent))
                click.echo(f"making the sample of {branch} ...", err=True)
                began = time.monotonic()
                try:
                    sample.write_sample(aside)
                    aside.rename(folder)
                    click.echo(f"  {time.monotonic() - began:6.1f} s", err=True)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
        return folder

    def _official(self, branch: str, download: bool) -> Path:
        folder = Path(self.cache) / "official" / branch
        folder.mkdir(parents=True, exist_ok=True)
        if not download:
            return folder
        if branch in OFFICIAL_BY_HAND and not any(folder.iterdir()):
            raise SourceUnavailableError(OFFICIAL_BY_HAND[branch].format(folder=folder))
        if branch in ZENODO:
            with FileLock(f"{folder}.lock"):
                _download(*ZENODO[branch], folder)
        return folder


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
