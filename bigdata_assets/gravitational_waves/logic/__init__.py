"""What the branch computes, without Dagster."""
