"""Groups of the `bigdata-assets` command, which a branch's `commands.py`, where it has one, adds its own to."""

import re

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Five big-data pipelines as one Dagster asset graph."""


@group.group()
def produce() -> None:
    """Send records of the sources to Kafka as if they were just coming in."""


def seconds(text: str) -> float:
    """Such as 120s, 2m or 0, as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    if match is None:
        raise click.UsageError(f"--every is a number and ms, s, m or h, such as 120s; {text!r} is not")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2] or "s"]
