"""A small, seeded, true-to-format input of the branch: exports of three made-up months.

Rates of arrest depend on the code, the place and whether it was domestic, by a rule of this file's own, so that
**scores on this sample mean nothing**; it is there for the pipeline to be seen at work without any download.
"""

import csv
import gzip
import random
from datetime import datetime, timedelta
from pathlib import Path

VERSION = 1
MONTHS = {"2015-11": 3_000, "2015-12": 3_000, "2016-01": 2_400}
HEADER = (
    "ID,Case Number,Date,Block,IUCR,Primary Type,Description,Location Description,Arrest,Domestic,Beat,District,Ward,"
    "Community Area,FBI Code,X Coordinate,Y Coordinate,Updated On,Latitude,Longitude"
).split(",")
CODES = (
    # IUCR, primary type, description, FBI code, share, rate of arrest
    ("0486", "BATTERY", "DOMESTIC BATTERY SIMPLE", "08B", 0.20, 0.22),
    ("0820", "THEFT", "$500 AND UNDER", "06", 0.20, 0.09),
    ("0460", "BATTERY", "SIMPLE", "08B", 0.12, 0.20),
    ("1310", "CRIMINAL DAMAGE", "TO PROPERTY", "14", 0.12, 0.06),
    ("0860", "THEFT", "RETAIL THEFT", "06", 0.08, 0.62),
    ("1811", "NARCOTICS", "POSS: CANNABIS 30GMS OR LESS", "18", 0.10, 0.98),
    ("0910", "MOTOR VEHICLE THEFT", "AUTOMOBILE", "07", 0.08, 0.05),
    ("1330", "CRIMINAL TRESPASS", "TO LAND", "26", 0.05, 0.75),
    ("143A", "WEAPONS VIOLATION", "UNLAWFUL POSS OF HANDGUN", "15", 0.05, 0.85),
)
PLACES = {"STREET": 1.0, "RESIDENCE": 0.8, "APARTMENT": 0.9, "SIDEWALK": 1.2, "SMALL RETAIL STORE": 1.3}


def write_sample(folder: Path, seed: int = 5) -> None:
    """Write one export a month, named and laid out as the portal's, the last one gzipped; two rows of each are bad."""
    rng = random.Random(seed)
    report_id = 10_300_000
    for month, rows in MONTHS.items():
        lines = [_report(rng, month, report_id + number) for number in range(rows)]
        report_id += rows
        lines.append({**lines[-1], "ID": report_id, "Date": "no time"})
        lines.append({**lines[0], "ID": "", "Block": ""})
        name = f"crimes_{month}_portal_export.csv"
        opener = gzip.open if month == max(MONTHS) else open
        with opener(folder / (f"{name}.gz" if month == max(MONTHS) else name), "wt", newline="") as file:
            writer = csv.DictWriter(file, HEADER)
            writer.writeheader()
            writer.writerows(lines)
        report_id += 2


def _report(rng: random.Random, month: str, report_id: int) -> dict[str, object]:
    iucr, primary_type, description, fbi_code, _, rate = rng.choices(CODES, [code[4] for code in CODES])[0]
    place = rng.choice(list(PLACES))
    domestic = "DOMESTIC" in description or rng.random() < 0.05
    start = datetime.fromisoformat(f"{month}-01")
    minutes = rng.randrange(30 * 24 * 60)
    occurred = start + timedelta(minutes=minutes - minutes % rng.choice((1, 5, 30)))
    district = rng.randrange(1, 26)
    return {
        "ID": report_id,
        "Case Number": f"HY{report_id % 1_000_000:06d}",
        "Date": f"{occurred:%m/%d/%Y %I:%M:%S %p}",
        "Block": f"{rng.randrange(100):03d}XX {rng.choice('NSEW')} EXAMPLE ST",
        "IUCR": iucr,
        "Primary Type": primary_type,
        "Description": description,
        "Location Description": place if rng.random() > 0.01 else "",
        "Arrest": str(rng.random() < min(0.99, rate * PLACES[place] * (0.9 if domestic else 1))).lower(),
        "Domestic": str(domestic).lower(),
        "Beat": f"{district:02d}{rng.randrange(1, 15):02d}",
        "District": f"{district:03d}",
        "Ward": rng.randrange(1, 51),
        "Community Area": rng.randrange(1, 78),
        "FBI Code": fbi_code,
        "X Coordinate": rng.randrange(1_095_000, 1_205_000),
        "Y Coordinate": rng.randrange(1_814_000, 1_951_000),
        "Updated On": f"{occurred + timedelta(days=7):%m/%d/%Y %I:%M:%S %p}",
        "Latitude": "",
        "Longitude": "",
    }
