"""Run every benchmark and print a table of ratios; figures go to benchmarks/results.json."""

import json
import platform
from pathlib import Path

from benchmarks import crimes, malicious_urls, overhead

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Run them one after the other: they would disturb each other."""
    figures = {"overhead": overhead.run(), "malicious_urls": malicious_urls.run(), "crimes": crimes.run()}
    for name, values in figures.items():
        print(f"\n{name}")
        for measure, value in values.items():
            print(f"  {measure:<68}{value:>12,.2f}")
    machine = {"python": platform.python_version(), "processor": platform.machine()}
    RESULTS.write_text(json.dumps({"machine": machine, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
