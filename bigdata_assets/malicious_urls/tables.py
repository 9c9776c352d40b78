"""The branch's tables."""

from pyspark.sql.types import BinaryType, DateType, DoubleType, LongType, StringType, TimestampType

from bigdata_assets.tables import Column, Table

BRANCH = "malicious_urls"
BENIGN = "benign"
UNKNOWN_KIND = "malicious"
"""Class of a URL whose list does not tell what is bad of it."""
CLASSES = (BENIGN, "defacement", UNKNOWN_KIND, "malware", "phishing")
"""The types of malicious_phish.csv and the unknown one, by name."""
MOST_OF_A_LIST = 50_000
"""URLs that are learnt, unless the asset's config says otherwise."""
SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}"
"""Pattern of names that are safe as a partition key, in a path and in SQL alike."""

_IS_CLASS = " IN ('" + "', '".join(CLASSES) + "')"
_URL = Column("url", StringType(), "The URL that is meant, as it was received but for what `as_given` tells.")
_AS_GIVEN = Column(
    "as_given",
    StringType(),
    "The text in the file, where the URL was defanged, broken over lines or had characters that cannot be seen.",
    nullable=True,
)
_DOMAIN = Column(
    "registered_domain",
    StringType(),
    "Domain below the public suffix of the host that a browser opens, lower case; the host where there is none.",
)
_LIST = Column("list", StringType(), "Name of the list, as its file's; the partition key.", nullable=True)
"""Of tables that were stored before there were several it is null; such rows are read no more."""
_BATCH = Column("batch", StringType(), "File in the landing folder; the partition key.")
_POSITION = Column(
    "position",
    LongType(),
    "Byte offset of the record in its file (unpacked; of UTF-16, in its text as UTF-8), or row in a Parquet file.",
)
_QUARANTINED = (
    _POSITION,
    Column("reason", StringType(), "Why the row is not in the table."),
    Column("raw", BinaryType(), "The row's first 65,536 bytes, as they were."),
    Column("length_bytes", LongType(), "Length of the row in its file.", check="length_bytes >= 0"),
)

LABELLED_URLS = Table(
    BRANCH,
    "labelled_urls",
    "One row per list and distinct URL with one label, such as those of malicious_phish.csv (Kaggle "
    "sid321axn/malicious-urls-dataset).",
    (
        _LIST,
        _URL,
        Column(
            "type", StringType(), "Class that the label means; malicious: of unknown kind.", check="type" + _IS_CLASS
        ),
        _DOMAIN,
        _AS_GIVEN,
        Column("copies", LongType(), "How often the file has this URL.", check="copies >= 1"),
    ),
    partition_column="list",
    partitioned_files=False,
)
QUARANTINED_URLS = Table(
    BRANCH,
    "quarantined_urls",
    "One row per row of a list that is not usable: broken, of an unknown type, or of contradicting labels.",
    (_LIST, Column("source", StringType(), "Name of the file."), *_QUARANTINED),
    partition_column="list",
    partitioned_files=False,
)
URL_BATCHES = Table(
    BRANCH,
    "url_batches",
    "One row per usable URL of a file that landed in BIGDATA_STORAGE/landing/urls, repeated ones included.",
    (
        _BATCH,
        _POSITION,
        _URL,
        Column(
            "label",
            StringType(),
            "What the file says of the URL, where it has a column `type` or `label`.",
            nullable=True,
        ),
        _DOMAIN,
        _AS_GIVEN,
        Column("landed_at", TimestampType(), "When the file was written."),
    ),
    partition_column="batch",
)
QUARANTINED_BATCH_URLS = Table(
    BRANCH,
    "quarantined_batch_urls",
    "One row per row of a landed file that is no usable URL; a file that cannot be read at all is one row.",
    (_BATCH, *_QUARANTINED),
    partition_column="batch",
)
PREDICTIONS = Table(
    BRANCH,
    "predictions",
    "One row per row of url_batches: the classifier's answer.",
    (
        _BATCH,
        _POSITION,
        _URL,
        _DOMAIN,
        Column("landed_at", TimestampType(), "When the file was written."),
        Column("predicted_class", StringType(), "The most probable class.", check="predicted_class" + _IS_CLASS),
        *(
            Column(
                f"p_{name}",
                DoubleType(),
                f"Probability of {name}" + (", where no list tells kinds; else 0." if name == UNKNOWN_KIND else "."),
                nullable=name == UNKNOWN_KIND,
                check=f"p_{name} BETWEEN 0 AND 1",
            )
            for name in CLASSES
        ),
        Column("model_version", StringType(), "Version of url_classifier, as in its model.json."),
        Column("scored_at", TimestampType(), "When the run that scored the row began to."),
    ),
    partition_column="batch",
    known_by=("batch", "position"),
)
PREDICTION_MART = Table(
    BRANCH,
    "prediction_mart",
    "One row per day, registered domain and predicted class, over all predictions.",
    (
        Column("day", DateType(), "Day (UTC) on which the URLs landed."),
        _DOMAIN,
        Column("predicted_class", StringType(), "The class.", check="predicted_class" + _IS_CLASS),
        Column("urls", LongType(), "URLs with that class.", check="urls >= 1"),
        Column("mean_probability", DoubleType(), "Mean probability of that class over them."),
        Column("max_probability", DoubleType(), "Highest probability of that class."),
        Column("first_seen", TimestampType(), "When the first of them landed."),
        Column("last_seen", TimestampType(), "When the last of them landed."),
    ),
)
TOP_DOMAINS = Table(
    BRANCH,
    "top_domains",
    "One row per registered domain with the most URLs predicted malicious, the hundred highest.",
    (
        Column("rank", LongType(), "1 is the domain with the most malicious URLs.", check="rank >= 1"),
        _DOMAIN,
        Column("malicious_urls", LongType(), "URLs whose predicted class is not benign.", check="malicious_urls >= 1"),
        Column("urls", LongType(), "All its URLs."),
        Column("main_class", StringType(), "The most frequent malicious class.", check="main_class" + _IS_CLASS),
        Column("mean_probability", DoubleType(), "Mean probability of the predicted class over the malicious ones."),
        Column("first_seen", TimestampType(), "When its first URL landed."),
        Column("last_seen", TimestampType(), "When its last URL landed."),
    ),
)
TABLES = (
    LABELLED_URLS,
    QUARANTINED_URLS,
    URL_BATCHES,
    QUARANTINED_BATCH_URLS,
    PREDICTIONS,
    PREDICTION_MART,
    TOP_DOMAINS,
)
