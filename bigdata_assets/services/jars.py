"""Java archives of the local engines: pinned by version and SHA-256 in templates/jars.toml, fetched once.

As a script: fetches those of an engine, the first argument, into a folder, the second.
"""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from filelock import FileLock
from tqdm import tqdm

from bigdata_assets.services import template

MINIMUM_JAVA = 17

IVY_SETTINGS = """<ivysettings><settings defaultResolver="central"/><resolvers>
<ibiblio name="central" m2compatible="true" usepoms="false"/></resolvers></ivysettings>"""
"""Maven Central, jars alone; someone's own ~/.ivy2/ivysettings.xml, such as one with a mirror, is used in its place."""


class JarsError(RuntimeError):
    """An archive could not be fetched, or is not the pinned one."""


@dataclass(frozen=True)
class Jar:
    """A pinned archive."""

    group: str
    name: str
    version: str
    sha256: str
    classifier: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}{self.classifier and f'-{self.classifier}'}.jar"


def require_java() -> None:
    """Check that Java is there and new enough.

    Raises:
        JarsError: it is not; the message says what to install.
    """
    has = "there is no `java` on PATH"
    if java := shutil.which("java"):
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        version = re.search(r'version "(\d+)', answer.stderr)
        if version and int(version[1]) >= MINIMUM_JAVA:
            return
        has = f"{java} is {version[1] if version else 'of no known version'}"
    raise JarsError(
        f"Java {MINIMUM_JAVA} or newer is needed, and {has}: install openjdk-17-jre-headless (Debian, Ubuntu: apt-get "
        "install openjdk-17-jre-headless; macOS: brew install openjdk@17)."
    )


def pinned() -> dict[str, list[Jar]]:
    """The archives of each engine."""
    engines = tomllib.loads(template("jars.toml"))
    return {engine: [Jar(**entry) for entry in entries["jars"]] for engine, entries in engines.items()}


def fetch(engine: str, folder: Path) -> list[Path]:
    """Paths of an engine's archives in `folder`, fetched first where one is missing or is not the pinned one.

    Raises:
        JarsError: an archive cannot be fetched, or even a fresh download is not the pinned file.
    """
    return fetch_all(pinned()[engine], folder, engine)


def fetch_all(jars: list[Jar], folder: Path, engine: str) -> list[Path]:
    """As `fetch`, of archives that are not in templates/jars.toml; `engine` is what they are said to be for."""
    if _wrong(jars, folder):  # looked at without the lock first: in an image the folder is read-only
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if wrong := _wrong(jars, folder):
                _fetch_with_ivy(wrong, folder, engine)
    return [folder / jar.file_name for jar in jars]


def _wrong(jars: list[Jar], folder: Path) -> list[Jar]:
    return [jar for jar in jars if not _is_pinned(folder / jar.file_name, jar)]


def _is_pinned(path: Path, jar: Jar) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:  # in pieces: an archive may have hundreds of megabytes
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


def _fetch_with_ivy(jars: list[Jar], folder: Path, engine: str) -> None:
    """Fetch with the Ivy that pyspark ships; each archive is checked aside and then moved into the folder.

    A cache of its own, thrown away after: Ivy trusts what its shared cache holds, a cut-off download too.
    """
    require_java()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as aside:
        work = Path(aside)
        (work / "ivy.xml").write_text(_ivy_xml(jars))
        settings = Path.home() / ".ivy2" / "ivysettings.xml"
        if not settings.is_file():
            settings = work / "ivysettings.xml"
            settings.write_text(IVY_SETTINGS)
        ivy = next((spark_home() / "jars").glob("ivy-*.jar"))
        command = ["java", f"-Divy.default.ivy.user.dir={work}", "-jar", str(ivy)]
        command += ["-ivy", str(work / "ivy.xml"), "-settings", str(settings), "-cache", str(work / "cache")]
        command += ["-retrieve", f"{work}/lib/[artifact]-[revision](-[classifier]).[ext]"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        for jar in tqdm(jars, desc=f"checking jars for {engine}", unit="jar"):
            fetched = work / "lib" / jar.file_name
            if not fetched.is_file():
                lines = [line.strip() for line in result.stdout.splitlines() if "WARN" in line or "ERROR" in line]
                raise JarsError(
                    f"{jar.group}:{jar.name}:{jar.version} could not be fetched from Maven Central: "
                    f"{' '.join(lines[:4]) or result.stderr.strip()[:300]}"
                )
            if not _is_pinned(fetched, jar):
                raise JarsError(f"{jar.file_name} as downloaded does not have the pinned SHA-256; it was not kept.")
            fetched.replace(folder / jar.file_name)


def spark_home() -> Path:
    """The installed pyspark's own folder, which has Spark's jars and commands.

    Raises:
        JarsError: pyspark is not installed.
    """
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarsError("pyspark is not installed: run `make env`.")
    return Path(spec.origin).parent


def _ivy_xml(jars: list[Jar]) -> str:
    dependencies = "".join(
        f"<dependency org={quoteattr(jar.group)} name={quoteattr(jar.name)} rev={quoteattr(jar.version)} "
        f'transitive="false" conf="default->*"><artifact name={quoteattr(jar.name)} type="jar"'
        f"{jar.classifier and f' m:classifier={quoteattr(jar.classifier)}'}/></dependency>"
        for jar in jars
    )
    return (
        '<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">'
        '<info organisation="bigdata_assets" module="engines"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )


if __name__ == "__main__":
    fetch(sys.argv[1], Path(sys.argv[2]))
