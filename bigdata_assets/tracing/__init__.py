"""From any row back to the bytes it was made of, and from a raw record to all that was made of it.

Nothing is recorded for it: rows are found by the tables' own columns, as the branches declare in their lineage.py; runs
are Dagster's, models tell of themselves by their cards.
"""
