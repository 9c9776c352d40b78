"""The branch."""

from bigdata_assets.branch import Branch
from bigdata_assets.flow_sensors import asset_checks, assets, sensors
from bigdata_assets.flow_sensors.lineage import LINEAGE
from bigdata_assets.flow_sensors.partitions import SENSORS, available
from bigdata_assets.flow_sensors.tables import BRANCH, TABLES

FLOW_SENSORS = Branch(
    name=BRANCH,
    tables=TABLES,
    assets=assets.ASSETS,
    checks=asset_checks.CHECKS,
    sensors=[sensors.new_channel_months],
    streams=[SENSORS],
    evaluations=[assets.anomaly_report.key],
    available=available,
    lineage=LINEAGE,
)
