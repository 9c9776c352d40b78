"""What checks of all branches share: the partitions they are for, and how shares are judged."""

from collections.abc import Mapping

import dagster as dg

WARN_SHARE = 0.02
FAIL_SHARE = 0.2
"""Quarantined share of a source: real files have under .1 %; a fifth means that it is another format."""


def run_keys(context: dg.AssetCheckExecutionContext) -> list[str] | None:
    """The partitions of the run that the check is part of; None where it is run by itself, for all."""
    step = context.op_execution_context
    return sorted(step.partition_keys) if step.has_partition_key or step.has_partition_key_range else None


def share_result(rows: Mapping[str, tuple[int, int]]) -> dg.AssetCheckResult:
    """Judges {source: (rows kept, rows quarantined)} by the worst source."""
    shares = {source: bad / max(good + bad, 1) for source, (good, bad) in rows.items()}
    worst = max(shares, key=lambda source: shares[source], default="none")
    share, (good, bad) = shares.get(worst, 0.0), rows.get(worst, (0, 0))
    return dg.AssetCheckResult(
        passed=share <= WARN_SHARE,
        severity=dg.AssetCheckSeverity.ERROR if share > FAIL_SHARE else dg.AssetCheckSeverity.WARN,
        description=f"{bad:,} of {good + bad:,} rows of {worst} are quarantined",
        metadata={
            "worst": worst,
            "share": share,
            "warns_above": WARN_SHARE,
            "fails_above": FAIL_SHARE,
            "quarantined": sum(bad for _, bad in rows.values()),
        },
    )
