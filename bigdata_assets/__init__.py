"""Five big-data pipelines as one Dagster asset graph."""

import warnings

# Backfills in one run are what makes a hundred small partitions quick; what is beta about them is tested here.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`")
warnings.filterwarnings("ignore", message="Parameter `include_sources`")
