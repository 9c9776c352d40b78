"""Partitions of the branch: Open Images' subsets, and networks."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from bigdata_assets import settings
from bigdata_assets.big_cats.source import SOURCE
from bigdata_assets.big_cats.tables import SUBSETS
from bigdata_assets.branch import Available
from bigdata_assets.sources import Sources, SourceUnavailableError

IMAGE_SUBSETS = dg.StaticPartitionsDefinition(list(SUBSETS))
NETWORKS = dg.StaticPartitionsDefinition(settings.load().big_cats_networks.split(","))
"""Those of the setting: a further one has a further partition."""


def available_subsets(sources: Sources) -> list[str]:
    """Subsets that there are labels of; of the publisher's files, which are downloaded when they are asked for, all."""
    from bigdata_assets.big_cats.logic import annotations

    if sources.location == "official":
        return list(SUBSETS)
    try:
        folder = sources.folder(SOURCE)
    except SourceUnavailableError:
        return []
    return [subset for subset in SUBSETS if annotations.find(folder, annotations.LABELS.name, subset)]


def available(resources: Mapping[str, Any], instance: dg.DagsterInstance) -> Available:  # noqa: ARG001 -- static ones
    """Subsets that the input has."""
    return {IMAGE_SUBSETS: available_subsets(resources["sources"])}
