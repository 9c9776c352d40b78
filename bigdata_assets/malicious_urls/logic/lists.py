"""Lists of labelled URLs: which files they are, what their labels mean, and all of them together without repetition.

Workers import this module: it never imports dagster.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bigdata_assets.malicious_urls.logic.domains import normalise
from bigdata_assets.malicious_urls.tables import BENIGN, SAFE_NAME, UNKNOWN_KIND

PUBLISHED = "malicious_phish"
PUBLISHED_FILES = ("malicious_phish", "malicious_phish_stratified_28k", "malicious_phish_first_41980")
"""Files of one list: the published one, and samples of it that are about. The first that is there is read."""
SUFFIXES = (".csv.gz", ".csv", ".parquet")
NAME = re.compile(SAFE_NAME)

MEANINGS: Mapping[str, str] = {
    **dict.fromkeys(("benign", "legitimate", "legit", "good", "safe", "normal", "0", "0.0", "false"), BENIGN),
    **dict.fromkeys(("malicious", "bad", "unsafe", "1", "1.0", "true"), UNKNOWN_KIND),
    **dict.fromkeys(("phishing", "phish"), "phishing"),
    **dict.fromkeys(("malware", "malware_download"), "malware"),
    **dict.fromkeys(("defacement", "defaced"), "defacement"),
}
"""Classes by what lists call them, in small letters. -1 is not here: some lists mean by it what others mean by 1."""
MEANINGS_OF: Mapping[str, Mapping[str, str]] = {
    "ebbu2017": {"1": "phishing"},
    "phiusiil": {"1": BENIGN, "0": "phishing"},
}
"""What is known of lists beyond that, by how their names begin, in small letters."""

LOG = logging.getLogger(__name__)


def lists(folder: Path) -> dict[str, Path]:
    """The lists in a folder, by name: each file that can be read is one, called like it without its ending.

    Of files that are the same list (in another format, or samples of malicious_phish.csv) the first is taken, the
    published one before samples. What is left out is told.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=_preference) if folder.is_dir() else []:
        if path.name.startswith((".", "_")):
            continue
        stem = _stem(path)
        name = PUBLISHED if stem in PUBLISHED_FILES else stem
        if name is None or not path.is_file():
            LOG.warning("%s is no list: those are files called .csv, .csv.gz or .parquet", path)
        elif not NAME.fullmatch(name) or "..." in name:
            LOG.warning("%s cannot be a list of that name: use letters, digits, dots, _ and - alone", path)
        elif name in found:
            LOG.warning("%s is not read: the list %s is read from %s", path, name, found[name].name)
        else:
            found[name] = path
    return dict(sorted(found.items()))


def meanings_of(name: str) -> dict[str, str]:
    """What is known of a list's labels beyond MEANINGS."""
    known = (its for begin, its in MEANINGS_OF.items() if name.lower().startswith(begin))
    return {label: class_ for its in known for label, class_ in its.items()}


def _stem(path: Path) -> str | None:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return None


def _preference(path: Path) -> tuple[int, str]:
    stem = _stem(path)
    return (PUBLISHED_FILES.index(stem) if stem in PUBLISHED_FILES else len(PUBLISHED_FILES)), path.name


class Pooled(NamedTuple):
    """Rows of all lists, and what was left out on the way."""

    rows: pd.DataFrame
    """Columns list, url, type, registered_domain, ordered by list and URL."""
    repeated: int
    """Rows of a URL that another row has too."""
    contradicting: int
    """Rows of URLs that one list calls benign and another does not."""
    not_drawn: int
    """Rows beyond the most of a list."""


def pooled(labelled: pd.DataFrame, most: int, seed: int) -> Pooled:
    """One row per URL as the classifier reads it, at most `most` of each list so that no list rules, drawn at random.

    Of a URL that several lists have, the row that tells its kind is kept, else that of the first list. What lists do
    not agree on is left out.

    Args:
        labelled: rows of LABELLED_URLS.
        most: rows of a list.
        seed: of the draw.
    """
    columns = ["list", "url", "type", "registered_domain"]
    rows = labelled[columns].sort_values(["list", "url"], ignore_index=True)
    read = rows["url"].map(normalise).str.lower()
    benign = (rows["type"] == BENIGN).groupby(read)
    agreed = benign.transform("min") == benign.transform("max")
    tells_kind = rows["type"] != UNKNOWN_KIND
    order = rows.assign(read=read, untold=~tells_kind)[agreed].sort_values(["untold", "list", "url"])
    distinct = order.drop_duplicates("read")
    drawn = distinct.sample(frac=1, random_state=seed).groupby("list").head(most)
    return Pooled(
        drawn[columns].sort_values(["list", "url"], ignore_index=True),
        len(order) - len(distinct),
        int((~agreed).sum()),
        len(distinct) - len(drawn),
    )
