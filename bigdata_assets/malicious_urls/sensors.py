"""New files in the landing folder become partitions and runs; what is left is scored at night."""

import json
import time
from collections.abc import Iterator

import dagster as dg

from bigdata_assets.malicious_urls.partitions import (
    LANDED_FILES,
    LandedFile,
    complete_files,
    landed_files,
    landing_folder,
)
from bigdata_assets.malicious_urls.tables import PREDICTIONS, QUARANTINED_BATCH_URLS, URL_BATCHES
from bigdata_assets.runs.files import file_requests
from bigdata_assets.runs.ranges import in_work
from bigdata_assets.settings import Settings

SETTLE_S = 10
FILE_TAG = "bigdata_assets/url_file"

score_landed_file = dg.define_asset_job(
    "score_landed_file",
    selection=dg.AssetSelection.assets(URL_BATCHES.key, QUARANTINED_BATCH_URLS.key, PREDICTIONS.key),
    description="Reads one landed file and scores its URLs.",
)


@dg.sensor(
    job=score_landed_file,
    minimum_interval_seconds=15,
    description="Finds complete new files in BIGDATA_STORAGE/landing/urls and has each scored as a partition.",
)
def new_url_files(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult | dg.SkipReason:
    """Watches the landing folder."""
    files, refused = landed_files(landing_folder(settings.storage))
    # The cursor only remembers the last listing. Losing it delays new files by one tick: which files were asked for
    # already is known from the runs' keys.
    complete = complete_files(files, json.loads(context.cursor or "{}"), time.time(), SETTLE_S)
    versions = {file.name: file.fingerprint for file in complete}
    requests = file_requests(context.instance, FILE_TAG, versions, URL_BATCHES.key, PREDICTIONS.key)
    new = sorted({str(request.partition_key) for request in requests} - _registered(context.instance))
    context.update_cursor(json.dumps({file.name: file.fingerprint for file in files}))
    if refused:
        context.log.warning("not taken: %s; rename to letters, digits, . _ - and .csv or .parquet", refused[:10])
    if not requests:
        waiting = len(files) - len(complete)
        return dg.SkipReason(f"{len(files)} files, none new; {waiting} still being written, {len(refused)} not taken")
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[LANDED_FILES.build_add_request(new)] if new else [],
    )


@dg.schedule(
    job=score_landed_file,
    cron_schedule="0 2 * * *",
    execution_timezone="UTC",
    description="At 02:00 UTC, scores each landed file that has no predictions yet.",
)
def score_what_is_left(
    context: dg.ScheduleEvaluationContext, settings: dg.ResourceParam[Settings]
) -> Iterator[dg.RunRequest] | dg.SkipReason:
    """Whatever the sensor did."""
    left = unscored_files(context.instance, settings)
    if not left:
        return dg.SkipReason("every landed file is scored")
    context.instance.add_dynamic_partitions(str(LANDED_FILES.name), [file.name for file in left])
    night = f"{context.scheduled_execution_time:%Y-%m-%d}"
    return iter([dg.RunRequest(f"{file.name}:{file.fingerprint}:{night}", partition_key=file.name) for file in left])


def unscored_files(instance: dg.DagsterInstance, settings: Settings) -> list[LandedFile]:
    """Settled files in the landing folder without predictions, and not being scored now."""
    files, _ = landed_files(landing_folder(settings.storage))
    scored = instance.get_materialized_partitions(PREDICTIONS.key)
    busy = in_work(instance, [file.name for file in files])
    settled = complete_files(files, {file.name: file.fingerprint for file in files}, time.time(), SETTLE_S)
    return [file for file in settled if file.name not in scored and file.name not in busy]


def _registered(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions(str(LANDED_FILES.name)))
