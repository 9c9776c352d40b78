"""Where the branch's rows come from: scores of a time, its channels' samples, their messages, Cassandra's rows."""

from bigdata_assets.flow_sensors.tables import (
    ANOMALY_SCORES,
    BRANCH,
    CHANNEL_EXPORT,
    CHANNEL_MESSAGES,
    CHANNEL_PUBLICATIONS,
    CHANNEL_QUALITY,
    CHANNEL_SAMPLES,
    HELD_OUT_SCORES,
    QUARANTINED_CHANNEL_MESSAGES,
    QUARANTINED_CHANNEL_ROWS,
    SITE_CORRELATIONS,
    WINDOWS,
)
from bigdata_assets.tracing.lineage import Lineage, Link, Model, Raw, Row, Since, same
from bigdata_assets.tracing.places import Places, kafka_message

MESSAGE = same("batch", "kafka_partition", "kafka_offset")
AT = Since("observed_at", "observed_at")
VALUES = ("value", "quality", "edited")


def cassandra_row(row: Row, places: Places) -> Raw:
    """What Cassandra has of a site's channel at a time."""
    site, channel, at = row["site"], row["channel"], row["observed_at"]
    place = {
        "table": f"{places.settings.cassandra_keyspace}.samples",
        "site": site,
        "channel": channel,
        "ts": at.isoformat(),
    }
    found = places.keyspace.sample(site, channel, at)
    if found is None:
        return Raw(place, notes=("no longer there: Cassandra has no such sample",))
    same_values = all(found[name] == row[name] for name in VALUES)
    return Raw(place, values=found, notes=() if same_values else ("Cassandra has other values now than this row",))


def loaded_line(row: Row, _places: Places) -> Raw:
    """The line of a channel file that was refused when it was loaded."""
    place = {"file": row["source"], "line": row["line"]}
    return Raw(place, (row["raw"] or "").encode(), notes=("as it was kept when the file was loaded",))


LINEAGE = Lineage(
    links=(
        Link(
            ANOMALY_SCORES,
            CHANNEL_SAMPLES,
            same("batch", "site"),
            span=AT,
            note="models also looked at samples of eight days around these, of this batch and those before it",
        ),
        Link(HELD_OUT_SCORES, WINDOWS, same("site", "observed_at")),
        Link(WINDOWS, CHANNEL_SAMPLES, same("site"), span=AT, note="of several versions the highest counts"),
        Link(CHANNEL_QUALITY, CHANNEL_SAMPLES, same("site", "channel")),
        Link(SITE_CORRELATIONS, WINDOWS, {"site_a": "site"}, note="the correlation is over all times of both sites"),
        Link(CHANNEL_SAMPLES, CHANNEL_MESSAGES, MESSAGE),
        Link(QUARANTINED_CHANNEL_MESSAGES, CHANNEL_MESSAGES, MESSAGE),
        Link(
            CHANNEL_SAMPLES,
            CHANNEL_EXPORT,
            same("site", "channel", "observed_at"),
            derived={"month": lambda row: f"{row['observed_at']:%Y-%m}"},
        ),
        Link(CHANNEL_PUBLICATIONS, CHANNEL_EXPORT, same("month", "site", "channel")),
    ),
    models=(
        Model(
            ANOMALY_SCORES,
            folder=f"{BRANCH}/anomaly_models/{{model}}/{{model_version}}",
            asset=f"{BRANCH}/anomaly_models",
            partition="{model}",
        ),
        Model(HELD_OUT_SCORES, asset="{model}", note="fitted on the other sites for this figure alone, and not kept"),
    ),
    sources={
        CHANNEL_MESSAGES.path: kafka_message,
        CHANNEL_SAMPLES.path: cassandra_row,
        CHANNEL_EXPORT.path: cassandra_row,
        QUARANTINED_CHANNEL_ROWS.path: loaded_line,
    },
    covered={CHANNEL_EXPORT.path: CHANNEL_SAMPLES.path},
)
