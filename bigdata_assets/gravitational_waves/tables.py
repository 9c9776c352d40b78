"""The branch's tables."""

import pyarrow as pa
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
)

from bigdata_assets.gravitational_waves.logic.classifiers.features import COLUMNS
from bigdata_assets.gravitational_waves.logic.training import metadata
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import CLASSES, SAMPLE_TYPES, VIEWS_S
from bigdata_assets.tables import Column, Table

BRANCH = "gravitational_waves"


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ('" + "', '".join(values) + "')"


_ID = Column("id", StringType(), "Gravity Spy's name of the glitch, ten characters.")
_LABEL = Column("label", StringType(), "One of the 22 classes; the partition key.", check=_one_of("label", CLASSES))
_SAMPLE_TYPE = Column(
    "sample_type",
    StringType(),
    "The publisher's split: train, validation or test.",
    check=_one_of("sample_type", SAMPLE_TYPES),
)

SPECTROGRAMS = Table(
    BRANCH,
    "spectrograms",
    "One row per glitch and view: its spectrogram. Source: Gravity Spy's training set, Zenodo record 1486046.",
    (
        _ID,
        _LABEL,
        _SAMPLE_TYPE,
        Column(
            "view_s",
            DoubleType(),
            "Seconds that the picture covers.",
            check=f"view_s IN ({', '.join(map(str, VIEWS_S))})",
        ),
        Column(
            "pixels",
            ArrayType(FloatType(), containsNull=False),
            "Grey values row by row, from 2,048 Hz down to 10 Hz, time from left to right.",
        ),
        Column("height", IntegerType(), "Rows.", check="height > 0"),
        Column("width", IntegerType(), "Columns.", check="width > 0"),
    ),
    partition_column="label",
)
QUARANTINED_SPECTROGRAMS = Table(
    BRANCH,
    "quarantined_spectrograms",
    "One row per dataset of the training set that is no usable spectrogram; a glitch that cannot be read is one row.",
    (
        Column("path", StringType(), "Where it is in the HDF5 file."),
        Column("label", StringType(), "The class, as the file's group is named; the partition key."),
        Column("reason", StringType(), "Why it is not in the table."),
    ),
    partition_column="label",
)

_DESCRIPTIONS = {
    "event_time": "GPS time of the trigger, s.",
    "ifo": "Detector: H1 or L1.",
    "peak_time": "GPS time of the peak, whole seconds.",
    "peak_time_ns": "Its nanoseconds.",
    "start_time": "GPS time of the start, whole seconds.",
    "start_time_ns": "Its nanoseconds.",
    "duration": "Duration, s.",
    "search": "Trigger generator.",
    "process_id": "Its process.",
    "event_id": "Its event.",
    "peak_frequency": "Frequency of the loudest tile, Hz.",
    "central_freq": "Central frequency, Hz.",
    "bandwidth": "Bandwidth, Hz.",
    "channel": "Data channel.",
    "amplitude": "Amplitude of the trigger.",
    "snr": "Signal-to-noise ratio of the trigger.",
    "confidence": "Confidence of the trigger.",
    "chisq": "Chi-squared of the trigger.",
    "chisq_dof": "Its degrees of freedom.",
    "param_one_name": "Name of a further parameter.",
    "param_one_value": "Its value.",
    "gravityspy_id": "Gravity Spy's name of the glitch.",
    "label": "Class.",
    "sample_type": "The publisher's split.",
    "url1": "Picture of the 0.5 s view.",
    "url2": "Picture of the 1 s view.",
    "url3": "Picture of the 2 s view.",
    "url4": "Picture of the 4 s view.",
}
_SPARK_TYPES: dict[pa.DataType, DataType] = {
    metadata.TEXT: StringType(),
    metadata.NUMBER: DoubleType(),
    metadata.WHOLE: LongType(),
}
GLITCH_METADATA = Table(
    BRANCH,
    "glitch_metadata",
    "One row per glitch of the training set: the 28 official columns of trainingset_v1d1_metadata.csv, typed.",
    tuple(
        Column(name, _SPARK_TYPES[kind], _DESCRIPTIONS[name], nullable=name not in metadata.NEEDED)
        for name, kind in metadata.COLUMNS.items()
    ),
)
QUARANTINED_METADATA = Table(
    BRANCH,
    "quarantined_metadata",
    "One row per row of the metadata file that cannot be used.",
    (
        Column("row", LongType(), "Row of the file, 1 after the header."),
        Column("reason", StringType(), "Why it is not in the table."),
        Column("raw", StringType(), "Its cells, joined by commas, the first 65,536 characters."),
    ),
)
GLITCH_FEATURES = Table(
    BRANCH,
    "glitch_features",
    "One row per glitch: its four views, pooled to squares of 10 pixels; a view it lacks is taken from its others.",
    (
        _ID,
        Column("label", StringType(), "Its class, of 22.", check=_one_of("label", CLASSES)),
        _SAMPLE_TYPE,
        *(
            Column(
                COLUMNS[view_s],
                ArrayType(FloatType(), containsNull=False),
                f"The view of {view_s} s: means of 14 by 17 squares, row by row from 2,048 Hz down.",
            )
            for view_s in VIEWS_S
        ),
    ),
)
GLITCH_VIEWS = Table(
    BRANCH,
    "glitch_views",
    "One row per glitch: its four views for a network, pooled to squares of 2 pixels; a view it lacks is taken from "
    "its others.",
    (
        _ID,
        Column("label", StringType(), "Its class, of 22.", check=_one_of("label", CLASSES)),
        _SAMPLE_TYPE,
        *(
            Column(
                COLUMNS[view_s],
                BinaryType(),
                f"The view of {view_s} s: greys of 70 by 85 squares, a byte each, row by row from 2,048 Hz down.",
            )
            for view_s in VIEWS_S
        ),
    ),
)
_UNTRIED = "none where folds is 0"
CHIRP_SVC_TUNING = Table(
    BRANCH,
    "chirp_svc_tuning",
    "One row per setting of the chirp classifier that was tried: its figures by cross-validation on training rows.",
    (
        Column("trial", LongType(), "Number of the trial."),
        Column("views_s", StringType(), "Views side by side, seconds, joined by commas."),
        Column("reg_param", DoubleType(), "LinearSVC's regParam."),
        Column("max_iter", LongType(), "LinearSVC's maxIter."),
        Column("weighted", BooleanType(), "Whether each class weighs the same as a whole."),
        Column("standardization", BooleanType(), "LinearSVC's standardization."),
        Column(
            "folds",
            LongType(),
            "Folds of the cross-validation, a fit each; 0 where nothing was tried: of one setting alone, as by default "
            "on the sample, there is nothing to choose, and fewer than two chirps cannot be dealt out. "
            "chirp_svc_report has the chosen setting's figures.",
        ),
        Column("roc_auc", DoubleType(), f"Mean area under the ROC curve over folds; {_UNTRIED}.", nullable=True),
        Column("recall", DoubleType(), f"Mean recall of chirps at 1 % false positives; {_UNTRIED}.", nullable=True),
        Column("recall_at_0", DoubleType(), f"Mean recall at margin 0; {_UNTRIED}.", nullable=True),
        Column("chosen", BooleanType(), "The trial that chirp_svc is fitted with."),
    ),
)
_MODEL_VERSION = Column(
    "model_version", StringType(), "Of the model, as its model.json has it; its threshold is that one's.", nullable=True
)
CHIRP_PREDICTIONS = Table(
    BRANCH,
    "chirp_predictions",
    "One row per glitch and model: how much it looks like a chirp to a model that was fitted on the training rows.",
    (
        _ID,
        Column("label", StringType(), "Its class, of 22."),
        _SAMPLE_TYPE,
        Column("model", StringType(), "chirp_svc, rbf_svm or glitch_cnn."),
        _MODEL_VERSION,
        Column(
            "margin",
            DoubleType(),
            "A machine's distance from its plane, in its own units; the network's probability of Chirp.",
        ),
        Column(
            "threshold",
            DoubleType(),
            "Of the margin, from validation rows, or training rows where those have nothing but chirps: 1 % of their "
            "others are above it; of fewer than 100, none is.",
        ),
        Column("is_chirp", BooleanType(), "Whether the margin is above the threshold."),
    ),
    known_by=("id", "model"),
)
_EVENT_DETECTOR = Column("event_detector", StringType(), "Event and detector, such as GW150914-H1; the partition key.")
_EVENT = Column("event", StringType(), "Name of the event.")
_DETECTOR = Column("detector", StringType(), "Detector, such as H1.")
STRAIN = Table(
    BRANCH,
    "strain",
    "One row per second around an event and detector: its strain h(t). Source: Gravitational Wave Open Science Center.",
    (
        _EVENT_DETECTOR,
        _EVENT,
        _DETECTOR,
        Column("event_gps_s", DoubleType(), "GPS time of the event, s."),
        Column("gps_s", LongType(), "GPS time of the row's first sample, s."),
        Column("rate_hz", IntegerType(), "Samples a second.", check="rate_hz > 0"),
        Column("strain", ArrayType(DoubleType(), containsNull=False), "Strain, dimensionless; NaN in gaps."),
        Column("dq_mask", LongType(), "Data quality: a bit for each name, the first name the lowest."),
        Column("dq_names", StringType(), "Names of the bits, joined by commas."),
        Column("file", StringType(), "Name of the strain file; of rows from before this column, null.", nullable=True),
    ),
    partition_column="event_detector",
    partitioned_files=False,
)
QUARANTINED_STRAIN = Table(
    BRANCH,
    "quarantined_strain",
    "One row per event and detector whose strain cannot be used.",
    (
        _EVENT_DETECTOR,
        Column("path", StringType(), "Name of the file; empty where there is none."),
        Column("reason", StringType(), "Why it is not in the table."),
    ),
    partition_column="event_detector",
    partitioned_files=False,
)
_SCAN = Column("scan", StringType(), "Name of the Q-scan: `<event>-<detector>@<GPS time>`.")
_SCAN_TIME = Column("gps_s", DoubleType(), "GPS time of the middle, s.")
_IS_EVENT = Column("is_event", BooleanType(), "Whether it is of the event, not of the background beside it.")
QSCANS = Table(
    BRANCH,
    "qscans",
    "One row per view of a Q-scan of real strain, in the geometry of spectrograms.",
    (
        _EVENT_DETECTOR,
        _EVENT,
        _DETECTOR,
        _SCAN,
        _SCAN_TIME,
        _IS_EVENT,
        *(column for column in SPECTROGRAMS.columns if column.name in ("view_s", "pixels", "height", "width")),
    ),
    partition_column="event_detector",
    partitioned_files=False,
)
QUARANTINED_QSCANS = Table(
    BRANCH,
    "quarantined_qscans",
    "One row per Q-scan that could not be made.",
    (_EVENT_DETECTOR, _SCAN, _IS_EVENT, Column("reason", StringType(), "Why not.")),
    partition_column="event_detector",
    partitioned_files=False,
)
EVENT_PREDICTIONS = Table(
    BRANCH,
    "event_predictions",
    "One row per Q-scan and model: whether the model that learnt from Gravity Spy's glitches takes it for a chirp.",
    (
        _EVENT_DETECTOR,
        _EVENT,
        _DETECTOR,
        _SCAN,
        _SCAN_TIME,
        _IS_EVENT,
        Column("model", StringType(), "chirp_svc, rbf_svm or glitch_cnn."),
        _MODEL_VERSION,
        Column("score", DoubleType(), "A machine's margin; the network's probability of Chirp."),
        Column("threshold", DoubleType(), "Of the score: that of the model's version."),
        Column("label", StringType(), "The class that the network thinks most likely.", nullable=True),
        Column("is_chirp", BooleanType(), "Whether the score is above the threshold."),
    ),
    partition_column="event_detector",
    partitioned_files=False,
    known_by=("event_detector", "scan", "model"),
)
TABLES = (
    SPECTROGRAMS,
    QUARANTINED_SPECTROGRAMS,
    GLITCH_METADATA,
    QUARANTINED_METADATA,
    GLITCH_FEATURES,
    GLITCH_VIEWS,
    CHIRP_SVC_TUNING,
    CHIRP_PREDICTIONS,
    STRAIN,
    QUARANTINED_STRAIN,
    QSCANS,
    QUARANTINED_QSCANS,
    EVENT_PREDICTIONS,
)
