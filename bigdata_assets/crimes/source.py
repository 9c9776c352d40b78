"""Where the branch's input files come from."""

from bigdata_assets.crimes.tables import BRANCH
from bigdata_assets.sources import Source

SOURCE = Source(BRANCH, "bigdata_assets.crimes.sample")
