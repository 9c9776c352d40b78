"""Run the benchmarks, all or those named, and print a table of ratios; figures go to benchmarks/results.json."""

import json
import platform
import sys
from pathlib import Path

from benchmarks import (
    batches,
    big_cats,
    crimes,
    flow_sensors,
    glitch_cnn,
    gravitational_waves,
    malicious_urls,
    overhead,
)

RESULTS = Path(__file__).with_name("results.json")
BENCHMARKS = {
    "overhead": overhead.run,
    "malicious_urls": malicious_urls.run,
    "crimes": crimes.run,
    "batches": batches.run,
    "gravitational_waves": gravitational_waves.run,
    "glitch_cnn": glitch_cnn.run,
    "big_cats": big_cats.run,
    "flow_sensors": flow_sensors.run,
}


def main(names: list[str]) -> None:
    """Run them one after the other: they would disturb each other."""
    figures = json.loads(RESULTS.read_text()) if names else {}
    figures["machine"] = {"python": platform.python_version(), "processor": platform.machine()}
    for name in names or BENCHMARKS:
        figures[name] = BENCHMARKS[name]()
        print(f"\n{name}")
        for measure, value in figures[name].items():
            print(f"  {measure:<68}{value:>12,.2f}")
        RESULTS.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
