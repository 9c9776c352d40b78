"""The branch."""

from bigdata_assets.big_cats import asset_checks, assets, partitions
from bigdata_assets.big_cats.lineage import LINEAGE
from bigdata_assets.big_cats.source import SOURCE
from bigdata_assets.big_cats.tables import BRANCH, TABLES
from bigdata_assets.branch import Branch

BIG_CATS = Branch(
    name=BRANCH,
    source=SOURCE,
    tables=TABLES,
    assets=assets.ASSETS,
    checks=asset_checks.CHECKS,
    evaluations=[assets.prediction_report.key, assets.cat_head_report.key],
    available=partitions.available,
    lineage=LINEAGE,
)
