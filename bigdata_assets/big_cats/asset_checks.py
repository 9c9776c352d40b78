"""The branch's own checks."""

import itertools
from collections import Counter
from collections.abc import Sequence

import dagster as dg

from bigdata_assets.big_cats.partitions import NETWORKS
from bigdata_assets.big_cats.tables import (
    BOXES,
    CAT_CHIPS,
    CHIP_PREDICTIONS,
    IMAGE_LABELS,
    IMAGE_SOURCES,
    IMAGES,
    NEGATIVE_IMAGES,
    QUARANTINED_BOX_ROWS,
    QUARANTINED_BOXES,
    QUARANTINED_IMAGES,
    QUARANTINED_LABELS,
    QUARANTINED_SOURCES,
)
from bigdata_assets.checks import run_keys, share_result
from bigdata_assets.tables import Table


def _share_check(usable: Table, refused: Table, what: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=usable.key,
        name=f"share_{refused.name}",
        additional_deps=[refused.key],
        description=f"The share of {what}; the run's worst subset decides.",
        required_resource_keys={"delta"},
    )
    def share(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        delta, keys = context.resources.delta, run_keys(context)
        kept, bad = (delta.rows_by_partition(table, keys) for table in (usable, refused))
        return share_result({subset: (kept[subset], bad[subset]) for subset in {*kept, *bad}})

    return share


@dg.asset_check(asset=IMAGES.key, additional_deps=[NEGATIVE_IMAGES.key], required_resource_keys={"delta"})
def pictures_differ(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """No two pictures have the same bytes, also of different subsets, nor a negative those of a cat: it is a stand-in
    that no run alone has seen twice, or would be learnt and scored.
    """
    delta = context.resources.delta
    hashes = [delta.read_arrow(table, columns=["sha256"])["sha256"].to_pylist() for table in (IMAGES, NEGATIVE_IMAGES)]
    found = sorted(name for name, count in Counter(itertools.chain(*hashes)).items() if count > 1)[:20]
    return dg.AssetCheckResult(
        passed=not found, severity=dg.AssetCheckSeverity.WARN, metadata={"sha256": found or ["none"]}
    )


@dg.asset_check(asset=CAT_CHIPS.key, blocking=True, required_resource_keys={"delta"})
def chips_are_there_once(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """A chip's name is there once."""
    twice = "SELECT chip_id FROM stored GROUP BY chip_id HAVING count(*) > 1 ORDER BY chip_id LIMIT 20"
    found = context.resources.delta.query(CAT_CHIPS, twice)["chip_id"].to_pylist()
    return dg.AssetCheckResult(passed=not found, metadata={"chips": found or ["none"]})


@dg.asset_check(
    asset=CHIP_PREDICTIONS.key, additional_deps=[CAT_CHIPS.key], blocking=True, required_resource_keys={"delta"}
)
def every_chip_is_named_once(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Each of the run's networks has one row for each chip."""
    delta = context.resources.delta
    networks = run_keys(context) or NETWORKS.get_partition_keys()
    n_chips = sum(delta.rows_by_partition(CAT_CHIPS).values())
    counted = "SELECT network, count(*) AS rows, count(DISTINCT chip_id) AS chips FROM stored GROUP BY network"
    rows = {row["network"]: row for row in delta.query(CHIP_PREDICTIONS, counted).to_pylist()}
    wrong = [name for name in networks if name in rows and not n_chips == rows[name]["rows"] == rows[name]["chips"]]
    missing = [name for name in networks if name not in rows and n_chips and run_keys(context)]
    return dg.AssetCheckResult(
        passed=not wrong + missing, metadata={"chips": n_chips, "networks_that_differ": wrong + missing or ["none"]}
    )


CHECKS: Sequence[dg.AssetChecksDefinition] = (
    _share_check(IMAGE_LABELS, QUARANTINED_LABELS, "rows of label files that could not be used"),
    _share_check(BOXES, QUARANTINED_BOX_ROWS, "rows of box files that could not be used"),
    _share_check(IMAGE_SOURCES, QUARANTINED_SOURCES, "rows of the files of pictures' sources that could not be used"),
    _share_check(IMAGES, QUARANTINED_IMAGES, "pictures that cannot be had or used"),
    _share_check(CAT_CHIPS, QUARANTINED_BOXES, "boxes that no chip could be made of"),
    pictures_differ,
    chips_are_there_once,
    every_chip_is_named_once,
)
