"""The branch."""

from bigdata_assets.branch import Branch
from bigdata_assets.crimes import asset_checks, assets, sensors
from bigdata_assets.crimes.lineage import LINEAGE
from bigdata_assets.crimes.partitions import CRIMES, available
from bigdata_assets.crimes.tables import BRANCH, TABLES

CRIMES_BRANCH = Branch(
    name=BRANCH,
    tables=TABLES,
    assets=assets.ASSETS,
    checks=asset_checks.CHECKS,
    sensors=[sensors.new_crime_months],
    streams=[CRIMES],
    evaluations=[assets.stream_report.key],
    available=available,
    lineage=LINEAGE,
)
