"""Where the branch's input files come from."""

from bigdata_assets.big_cats.tables import BRANCH, SUBSETS
from bigdata_assets.sources import Source

_PUBLISHER = "https://storage.googleapis.com/openimages"
CLASSES_URL = f"{_PUBLISHER}/v5/class-descriptions-boxable.csv"
LABELS_URLS = {subset: f"{_PUBLISHER}/v5/{subset}-annotations-human-imagelabels-boxable.csv" for subset in SUBSETS}
BOXES_URLS = {
    "test": f"{_PUBLISHER}/v5/test-annotations-bbox.csv",
    "validation": f"{_PUBLISHER}/v5/validation-annotations-bbox.csv",
    "train": f"{_PUBLISHER}/v6/oidv6-train-annotations-bbox.csv",
}
SOURCES_URLS = {
    "test": f"{_PUBLISHER}/2018_04/test/test-images-with-rotation.csv",
    "validation": f"{_PUBLISHER}/2018_04/validation/validation-images-with-rotation.csv",
    "train": f"{_PUBLISHER}/2018_04/train/train-images-boxable-with-rotation.csv",
}
SOURCE = Source(
    BRANCH,
    "bigdata_assets.big_cats.sample",
    urls=(CLASSES_URL, *LABELS_URLS.values(), *BOXES_URLS.values(), *SOURCES_URLS.values()),
)
"""Pictures are no part of it: those that are asked for are downloaded one by one."""
