"""Pure functions of the branch, by topic; Spark's workers import them: they never import dagster."""
