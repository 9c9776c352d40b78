"""The branch."""

from bigdata_assets.branch import Branch
from bigdata_assets.gravitational_waves import asset_checks, assets, partitions, sensors
from bigdata_assets.gravitational_waves.lineage import LINEAGE
from bigdata_assets.gravitational_waves.source import SOURCE
from bigdata_assets.gravitational_waves.tables import BRANCH, TABLES

GRAVITATIONAL_WAVES = Branch(
    name=BRANCH,
    source=SOURCE,
    tables=TABLES,
    assets=assets.ASSETS,
    checks=asset_checks.CHECKS,
    jobs=[sensors.look_at_event],
    sensors=[sensors.new_strain_files],
    evaluations=[assets.chirp_svc_report.key, assets.glitch_cnn_report.key],
    available=partitions.available,
    lineage=LINEAGE,
)
