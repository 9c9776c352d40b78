"""The branch."""

from bigdata_assets.branch import Branch
from bigdata_assets.malicious_urls import asset_checks, assets, partitions, sensors
from bigdata_assets.malicious_urls.lineage import LINEAGE
from bigdata_assets.malicious_urls.tables import BRANCH, TABLES

MALICIOUS_URLS = Branch(
    name=BRANCH,
    tables=TABLES,
    assets=assets.ASSETS,
    checks=asset_checks.CHECKS,
    jobs=[sensors.score_landed_file],
    sensors=[sensors.new_url_files],
    schedules=[sensors.score_what_is_left],
    evaluations=[assets.classifier_report.key],
    available=partitions.available,
    lineage=LINEAGE,
)
