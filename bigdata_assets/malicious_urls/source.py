"""Where the branch's input files come from."""

from bigdata_assets.malicious_urls.tables import BRANCH
from bigdata_assets.sources import Source

SOURCE = Source(
    BRANCH,
    "bigdata_assets.malicious_urls.sample",
    by_hand=(
        "Any list of labelled URLs will do, and several are better than one. malicious_phish.csv is published at "
        "kaggle.com/datasets/sid321axn/malicious-urls-dataset and can only be "
        "downloaded with a Kaggle account: download it there, unpack it as {folder}/malicious_phish.csv, and run this "
        "again. Or set BIGDATA_SOURCES to a folder that has lists in malicious_urls/."
    ),
)
