"""Where the branch's input files come from."""

from bigdata_assets.gravitational_waves.tables import BRANCH
from bigdata_assets.sources import Source

SOURCE = Source(
    BRANCH,
    "bigdata_assets.gravitational_waves.sample",
    zenodo=("10.5281/zenodo.1486046", ("trainingsetv1d1.h5", "trainingset_v1d1_metadata.csv")),
)
