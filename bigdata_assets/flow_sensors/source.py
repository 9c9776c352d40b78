"""Where the branch's input files come from."""

from bigdata_assets.flow_sensors.tables import BRANCH
from bigdata_assets.sources import Source

SOURCE = Source(
    BRANCH,
    "bigdata_assets.flow_sensors.sample",
    by_hand=(
        "Channel files have no one publisher, so put those that you want into {folder} and run this again: "
        "anomalies.csv of github.com/carldata/timeseries in a folder named after its site; the Logan River "
        "Observatory's files (MainStreet2019.csv and so on) of github.com/AmberSJones/pyhydroqc; instantaneous values "
        "of waterservices.usgs.gov with format=rdb; or files of your own, with a sites.csv. Or set BIGDATA_SOURCES to "
        "a folder that has a folder flow_sensors with them."
    ),
)
