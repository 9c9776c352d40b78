"""Pure functions of the branch; nothing here imports dagster."""
