"""A small, seeded, true-to-format input of the branch: URLs of the four types from a grammar.

The types differ by the grammar's own rules, so that **scores on this sample mean nothing**; it is there for the
pipeline to be seen at work without any download. What it has on purpose: domains that several types share (free hosts),
domains of one type alone, repeated rows, contradicting labels, and rows that are no URL.
"""

import csv
import io
import random
from pathlib import Path

from upath import UPath

from bigdata_assets.io_managers.files import write_file

VERSION = 2
ROWS = 4_500
OTHER_ROWS = 1_500
BATCH_ROWS = 400
SHARES = {"benign": 0.66, "defacement": 0.15, "phishing": 0.14, "malware": 0.05}

WORDS = (
    "alpine amber archive atlas autumn basin beacon birch bridge canyon cedar circle clay clover coast copper coral "
    "crest delta ember falcon fern field forest garden glacier granite harbor hazel island ivory juniper lagoon "
    "lantern linen maple marble meadow mineral mosaic north oasis olive orchard pebble pine prairie quartz "
    "raven reef ridge river saffron sierra silver slate spruce stone summit thistle timber valley velvet willow winter"
).split()
BRANDS = ("examplebank", "samplepay", "demomail", "mockdrive", "toyauction")
SHARED_HOSTS = ("freepages.example.com", "shops.example.net", "blogs.example.org")
SUFFIXES = ("example", "test", "invalid")
"""Reserved names only: a made-up malicious URL must not name anybody's real site."""


def write_sample(folder: Path, seed: int = 7) -> None:
    """Write malicious_phish.csv (url,type) into a folder, in the publisher's layout, and another list (url,label).

    The other one tells malicious from benign alone, by 1 and 0, and shares URLs with the first.
    """
    rng = random.Random(seed)
    rows = [(_url(rng, kind), kind) for kind in rng.choices(list(SHARES), weights=list(SHARES.values()), k=ROWS)]
    rows += rng.sample(rows, 40)  # the published file has one repeated row in sixty
    rows += [(url, "phishing" if kind == "benign" else "benign") for url, kind in rng.sample(rows, 8)]
    rows += [("", "benign"), ("http://", "malware"), ("\x01\x02\x7f", "phishing"), ("plain.example.com/", "spam")]
    rng.shuffle(rows)
    (folder / "malicious_phish.csv").write_text(_csv(("url", "type"), rows), newline="", encoding="utf-8")
    others = [(_url(rng, kind), kind) for kind in rng.choices(["benign", "phishing"], k=OTHER_ROWS)]
    others += [(url, kind) for url, kind in rng.sample(rows, 50) if kind in SHARES]
    labels = [(url, "0" if kind == "benign" else "1") for url, kind in others]
    (folder / "other_list.csv").write_text(_csv(("url", "label"), labels), newline="", encoding="utf-8")


def write_landing_files(folder: UPath, n_files: int = 3, seed: int = 11) -> None:
    """Write files of new URLs to score, some with a column `type`, named as a nightly delivery would be."""
    rng = random.Random(seed)
    for day in range(1, n_files + 1):
        kinds = rng.choices(list(SHARES), weights=list(SHARES.values()), k=BATCH_ROWS)
        rows = [(_url(rng, kind), kind) for kind in kinds]
        rows.append(("\x01 no url", "benign"))
        write_file(folder / f"sample_delivery_{day}.csv", _csv(("url", "type"), rows).encode())


def _csv(header: tuple[str, ...], rows: list[tuple[str, str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def _url(rng: random.Random, kind: str) -> str:
    www = "www." if rng.random() < 0.2 else ""
    host = rng.choice(SHARED_HOSTS) if rng.random() < 0.15 else f"{_word(rng)}{_word(rng)}.{rng.choice(SUFFIXES)}"
    path = {"benign": _benign, "defacement": _defacement, "phishing": _phishing, "malware": _malware}[kind](rng)
    if kind == "malware" and rng.random() < 0.5:
        www, host = "", ".".join(str(rng.randrange(1, 255)) for _ in range(4))
    if kind == "phishing" and rng.random() < 0.6:
        host = f"{rng.choice(BRANDS)}-{rng.choice(('login', 'secure', 'verify'))}.{host}"
    # As in the published file, the scheme tells the types apart although it says nothing of a URL's danger.
    scheme = "http://" if rng.random() < {"benign": 0.1, "defacement": 1, "malware": 0.9, "phishing": 0.3}[kind] else ""
    return f"{scheme}{www}{host}{path}"


def _word(rng: random.Random) -> str:
    return rng.choice(WORDS)


def _benign(rng: random.Random) -> str:
    path = "".join(f"/{_word(rng)}" for _ in range(rng.randrange(1, 4)))
    return path + rng.choice(("/", ".html", "", f"?page={rng.randrange(1, 30)}"))


def _defacement(rng: random.Random) -> str:
    query = f"option=com_{rng.choice(('content', 'mailto', 'user'))}&view={_word(rng)}&id={rng.randrange(1, 900)}"
    return f"/index.php?{query}" if rng.random() < 0.85 else _benign(rng)


def _phishing(rng: random.Random) -> str:
    token = f"{rng.getrandbits(64):016x}"
    return rng.choice((f"/webscr/login.php?session={token}", f"/~{_word(rng)}/update/{token}/", _benign(rng)))


def _malware(rng: random.Random) -> str:
    port = f":{rng.randrange(1024, 65535)}" if rng.random() < 0.5 else ""
    return f"{port}/{rng.choice((_word(rng), 'bins', 'i'))}{rng.choice(('.exe', '.sh', '.zip', '/Mozi.m', '.apk'))}"
