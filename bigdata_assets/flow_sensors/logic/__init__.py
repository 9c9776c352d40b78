"""Logic of the branch: plain values in and out, never Dagster."""
