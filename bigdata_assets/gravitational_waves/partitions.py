"""Partitions of the branch: the training set by class, and the events that strain is there for."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from bigdata_assets.branch import Available
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES
from bigdata_assets.gravitational_waves.source import SOURCE
from bigdata_assets.sources import Sources, SourceUnavailableError

GLITCH_CLASSES = dg.StaticPartitionsDefinition(list(CLASSES))
"""Gravity Spy's 22: of one that the file lacks there are no rows."""
SKY_EVENTS = dg.DynamicPartitionsDefinition(name="sky_events")
"""`<event>-<detector>`, of the events that a strain file is there for."""
LOG = logging.getLogger(__name__)


def events_folder(sources: Sources) -> Path | None:
    """The branch's folder, nothing being downloaded for it; None where there is none."""
    try:
        return sources.folder(SOURCE, download=False)
    except SourceUnavailableError:
        return None


def available(resources: Mapping[str, Any], instance: dg.DagsterInstance) -> Available:
    """Events, added: none, and a warning, where the list of them is broken."""
    from bigdata_assets.gravitational_waves.logic.strain import events
    from bigdata_assets.gravitational_waves.logic.strain.strain import StrainFileError

    folder, keys = events_folder(resources["sources"]), []
    try:
        keys = events.keys(folder) if folder else []
    except StrainFileError as error:
        LOG.warning("no events: %s", error)
    instance.add_dynamic_partitions(str(SKY_EVENTS.name), keys)
    return {SKY_EVENTS: keys}
