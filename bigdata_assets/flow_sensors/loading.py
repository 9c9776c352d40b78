"""Loads channel files into Cassandra: what `bigdata-assets load sensors` does, and what a sample needs."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from bigdata_assets.flow_sensors.logic import channel_files
from bigdata_assets.flow_sensors.source import SOURCE
from bigdata_assets.resources.cassandra import CassandraResource
from bigdata_assets.resources.keyspaces import Keyspace
from bigdata_assets.settings import Settings
from bigdata_assets.sources import Sources

LOG = logging.getLogger(__name__)


def load(keyspace: Keyspace, folder: Path | None, paths: Iterable[Path]) -> Counter[str]:
    """Write files' samples, sites and refused lines; how many of each. To load a file again changes nothing.

    A file's lines come in parts, each of which is acknowledged before the next one is read: memory does not grow with
    the file, and whoever is killed loads it again.

    Args:
        keyspace: where to.
        folder: of the sources, whose sites.csv is known of files that are elsewhere too; None: there is none.
        paths: the files.

    Raises:
        ChannelFileError: a file, or sites.csv, is in no known layout; those before it are loaded.
        CassandraError: it cannot be asked any more.
    """
    told = Counter[str]()
    for path in paths:
        sites, name = _sites(path, folder), _name(path, folder)
        keyspace.write_rows("sites", [asdict(site) for site in sites.values()])
        keyspace.forget_refused(name)  # what was mended since
        with tqdm(desc=path.name, unit="sample", unit_scale=True, disable=None) as bar:
            for part in channel_files.read(path, sites):
                keyspace.write_rows("sites", [asdict(site) for site in part.sites.values()])
                refused = [
                    row | {"source": name} | {"channel": row["channel"] or ""} for row in part.refused.to_pylist()
                ]
                keyspace.write_rows("refused", refused)
                bar.update(keyspace.write_samples(part.samples))
                told += Counter(samples=part.samples.num_rows, refused=len(refused), repeats=part.repeats)
    return told


def _sites(path: Path, folder: Path | None) -> dict[str, channel_files.Site]:
    """What sites.csv tells: of the folder of all files, and of the file's own folder and those between, which wins."""
    between = [parent for parent in reversed(path.parents) if folder and parent.is_relative_to(folder)]
    found: dict[str, channel_files.Site] = {}
    for parent in dict.fromkeys([*([folder] if folder else []), *between, path.parent]):
        found |= channel_files.sites(parent)
    return found


def _name(path: Path, folder: Path | None) -> str:
    """A file's name below the folder, or its whole path: those of two sites may be called alike."""
    return str(path.relative_to(folder) if folder and path.is_relative_to(folder) else path)


def load_sample(settings: Settings, cassandra: CassandraResource, sources: Sources) -> None:
    """Load the sample's files into our own node, if it has no sample of theirs yet; into no other one.

    Raises:
        CassandraError: it cannot be asked.
    """
    with FileLock(settings.dagster_home / "flow_sensors_sample.lock"), cassandra.keyspace_session() as keyspace:
        if keyspace.cluster_name() != settings.own_cassandra_cluster:
            LOG.warning(
                "nothing is loaded: Cassandra at %s is not the node that this project started, and the sources are the "
                "sample. `bigdata-assets load sensors` loads there what you want there",
                settings.cassandra_points,
            )
            return
        keyspace.create(settings.cassandra_replication)
        folder = sources.folder(SOURCE)
        loaded = settings.services_dir / "cassandra" / f"loaded-{folder.parent.name}-{settings.cassandra_keyspace}"
        if not loaded.exists():
            load(keyspace, folder, channel_files.files(folder))
            loaded.touch()
