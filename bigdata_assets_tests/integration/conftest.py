"""Projects of a test's own on the session's Spark server."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from bigdata_assets import definitions
from bigdata_assets.branch import Branch
from bigdata_assets.definitions import BRANCHES
from bigdata_assets.malicious_urls.partitions import URL_LISTS
from bigdata_assets.resources.kafka import KafkaResource
from bigdata_assets.runs.ranges import tags_for
from bigdata_assets.services import template
from bigdata_assets.settings import PROJECT_ROOT, Settings
from bigdata_assets_tests.conftest import Engines

REAL_DATA = PROJECT_ROOT.parent / "shared" / "data"
BATCH_ASSETS = ("url_batches", "quarantined_batch_urls", "predictions")
SAMPLE_LISTS = ("malicious_phish", "other_list")


class Project:
    """Storage, Dagster instance and landing folder below a folder."""

    def __init__(
        self, folder: Path, server: Settings, sources: str = "sample", branches: Sequence[Branch] = BRANCHES
    ) -> None:
        home = folder / "dagster"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text(template("dagster.yaml", max_concurrent=server.max_concurrent))
        self.settings = server.model_copy(
            update={"storage": str(folder / "storage"), "dagster_home": home, "sources": sources}
        )
        self.landing = folder / "storage" / "landing" / "urls"
        self.landing.mkdir(parents=True)
        self.defs = definitions.build(self.settings, dg.in_process_executor, branches)

    def rebuild(self) -> None:
        """Definitions anew, after the settings were changed."""
        self.defs = definitions.build(self.settings, executor=dg.in_process_executor)

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.settings.dagster_home))

    def run(self, assets: tuple[str, ...], *partitions: str, config: Any = None, raise_on_error: bool = True) -> Any:
        """Materialise assets of the URL branch in this process; all the partitions in one run."""
        keys = [dg.AssetKey(["malicious_urls", asset]) for asset in assets]
        return self.execute(keys, partitions, config, raise_on_error)

    def execute(
        self, assets: list[dg.AssetKey], partitions: tuple[str, ...], config: Any = None, raise_on_error: bool = True
    ) -> Any:
        """One run in this process, over the range of partitions; dynamic ones are added first."""
        tags = tags_for(partitions[0], partitions[-1]) if partitions else {}
        of = self.defs.resolve_asset_graph().get(assets[0]).partitions_def
        with self.instance() as instance:
            if isinstance(of, dg.DynamicPartitionsDefinition):
                instance.add_dynamic_partitions(str(of.name), list(partitions))
            return self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
                instance=instance,
                asset_selection=assets,
                tags=tags,
                raise_on_error=raise_on_error,
                run_config=config,
            )

    def cli(self, *arguments: str, output: Any = subprocess.PIPE) -> "subprocess.Popen[str]":
        """Start the `bigdata-assets` command on this project."""
        return subprocess.Popen(
            [sys.executable, "-m", "bigdata_assets.cli", *arguments],
            env={**os.environ, **self.settings.environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def table(self, name: str, *without: str, branch: str = "malicious_urls") -> pd.DataFrame:
        """A table's rows, ordered by all columns but those left out."""
        from deltalake import DeltaTable

        frame = DeltaTable(f"{self.settings.storage}/{branch}/{name}").to_pyarrow_table().to_pandas()
        frame = frame.drop(columns=list(without))
        return frame.sort_values(list(frame.columns), ignore_index=True)

    def use_model_of(self, other: "Project") -> None:
        """Take over labelled URLs and classifier."""
        for name in ("labelled_urls", "quarantined_urls", "url_classifier"):
            source = Path(other.settings.storage) / "malicious_urls" / name
            shutil.copytree(source, Path(self.settings.storage) / "malicious_urls" / name)
        with self.instance() as instance:
            instance.add_dynamic_partitions(str(URL_LISTS.name), SAMPLE_LISTS)

    def land(self, name: str, urls: list[str]) -> str:
        """Put a file of URLs into the landing folder."""
        (self.landing / name).write_text("url\n" + "\n".join(urls) + "\n")
        return name


@pytest.fixture
def topic(kafka: KafkaResource) -> str:
    """A new topic of two partitions that takes large messages."""
    name = f"test.{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name, 2, {"max.message.bytes": "6000000"})
    return name


@pytest.fixture
def empty_project(spark_server: Settings, tmp_path: Path) -> Project:
    """A project without anything."""
    return Project(tmp_path / "ein Projekt é", spark_server)


@pytest.fixture(scope="session")
def trained(_engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Project:
    _engines.ensure_up()
    project = Project(tmp_path_factory.mktemp("trained"), _engines.settings)
    config = {"ops": {"malicious_urls__url_classifier": {"config": {"family": "lightgbm"}}}}
    project.run(("labelled_urls", "quarantined_urls"), *SAMPLE_LISTS)
    project.run(("url_classifier",), config=config)
    return project


@pytest.fixture
def project(empty_project: Project, trained: Project) -> Iterator[Project]:
    """A project with labelled URLs of the sample and a small classifier, and no batch."""
    empty_project.use_model_of(trained)
    return empty_project
