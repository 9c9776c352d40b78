"""A soak: the whole stack under load, something killed with -9 every so often, and every row accounted for."""

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pandas as pd
import psutil
from deltalake import DeltaTable

from bigdata_assets import settings as settings_module
from bigdata_assets.crimes.logic import exports
from bigdata_assets.crimes.partitions import CRIMES
from bigdata_assets.crimes.sample import write_sample
from bigdata_assets.flow_sensors.partitions import SENSORS
from bigdata_assets.malicious_urls.partitions import LANDED_FILES
from bigdata_assets.malicious_urls.sample import write_sample as write_lists
from bigdata_assets.malicious_urls.tables import PREDICTIONS
from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError
from bigdata_assets.run_launcher import process_lives, worker
from bigdata_assets.services.supervisor import free_port, read_state
from bigdata_assets.settings import Settings
from bigdata_assets.streams.batches import parse
from bigdata_assets.streams.planner import Planner
from bigdata_assets.streams.stream import Stream
from bigdata_assets_tests.conftest import kill_9, wait_for
from bigdata_assets_tests.integration.conftest import Project
from bigdata_assets_tests.stack import Stack, Ui

FIGURES = "benchmarks/soak.json"
KILL_EVERY_S = 30
HEALED_WITHIN_S = 180
PROCESSES = ("code-server", "webserver", "daemon", "kafka", "spark-connect", "run", "step")
MONTH = "2016-01"
ALWAYS = ("majority", "iucr_rate", "online_sgd")
PLACE = ["kafka_partition", "kafka_offset"]
MB = 1_000_000


class Commands:
    """Commands, one after the other; one that is killed or cannot go on is started again, as a user's service would."""

    def __init__(self, soak: "Soak", name: str, commands: Sequence[Sequence[str]], every_s: float = 0) -> None:
        self._soak, self.name, self._left, self._every_s = soak, name, list(commands), every_s
        self._process: subprocess.Popen[str] | None = None
        self._next = 0.0

    def go_on(self) -> None:
        if self._process and (code := self._process.poll()) is not None:
            self._process = None
            if code == 0:
                self._left.pop(0)
            self._next = max(self._next, time.monotonic() + 1)  # after one that failed at once
        if self._left and not self._process and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            with (self._soak.folder / f"{self.name}.log").open("a") as log:
                self._process = self._soak.project.cli(*self._left[0], output=log)

    @property
    def is_over(self) -> bool:
        return not self._left

    def kill(self) -> bool:
        """Whether it was running."""
        if not self._process or self._process.poll() is not None:
            return False
        kill_9(self._process.pid)
        return True

    def stop(self) -> None:
        """As Ctrl-C does it: what it is about to send is sent."""
        self._left = []
        if self._process:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


class Load(ABC):
    """Something that comes in while processes are killed.

    Attributes:
        sensors: what has it run.
        commands: what brings it in, each a victim too.
    """

    sensors: tuple[str, ...] = ()

    def __init__(self, soak: "Soak") -> None:
        self.soak = soak
        self.settings = soak.settings
        self.commands: list[Commands] = []

    @abstractmethod
    def prepare(self) -> None:
        """Make what is there before the first kill."""

    def go_on(self) -> None:
        for command in self.commands:
            command.go_on()

    @abstractmethod
    def end(self) -> None:
        """Begin nothing more; what was begun and has an end goes on to it."""

    @property
    def is_in(self) -> bool:
        """Everything that was to come has come in."""
        return all(command.is_over for command in self.commands)

    @abstractmethod
    def is_caught_up(self, instance: dg.DagsterInstance) -> bool:
        """Nothing waits any more."""

    @abstractmethod
    def account(self) -> dict[str, Any]:
        """Every row is in each table once; the figures."""

    def command(self, *arguments: str) -> None:
        """Run a command to its good end."""
        with (self.soak.folder / "commands.log").open("a") as log:
            assert self.soak.project.cli(*arguments, output=log).wait(600) == 0, arguments

    def table(self, path: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        return DeltaTable(f"{self.settings.storage}/{path}").to_pandas(columns=columns)


class Topic(Load):
    """A stream's messages."""

    stream: Stream

    def __init__(self, soak: "Soak") -> None:
        super().__init__(soak)
        self.planner = Planner(self.stream, self.settings, KafkaResource.of(self.settings))
        self.sensors = (self.stream.sensor,)

    def end(self) -> None:
        """The stream is stopped wherever it is."""
        self.commands[0].stop()

    def is_caught_up(self, instance: dg.DagsterInstance) -> bool:
        try:
            held = self.planner.kafka.offsets(self.planner.topic)
        except KafkaUnreachableError:
            return False
        states = self.planner.states(instance)
        ends = sum(len(parse(key)) for key in states)
        learnt = instance.get_materialized_partitions(self.stream.learnt) if self.stream.learnt else set(states)
        return ends == sum(o.end for o in held.values()) and set(states.values()) == {"done"} and learnt == set(states)

    def sent(self) -> list[tuple[int, int]]:
        held = self.planner.kafka.offsets(self.planner.topic)
        return sorted((partition, offset) for partition, o in held.items() for offset in range(o.begin, o.end))


def places(rows: pd.DataFrame) -> list[tuple[int, int]]:
    return sorted(rows[PLACE].itertuples(index=False, name=None))


class Crimes(Topic):
    """Reports, and models that learn them."""

    stream = CRIMES

    def prepare(self) -> None:
        folder = self.soak.sources / "crimes"
        folder.mkdir()
        write_months(folder, self.soak.rows)
        options = f"--month {MONTH} --resume --rows {self.soak.rate} --every 1s".split()
        self.commands = [Commands(self.soak, "producer", [["produce", "crimes", *options]])]

    def account(self) -> dict[str, Any]:
        """Every message that the topic has is in each table once, and every report was sent once."""
        sent = self.sent()
        for name in ("crime_messages", "crime_reports"):
            assert places(self.table(f"crimes/{name}", PLACE)) == sent, name
        scores = self.table("crimes/arrest_scores", ["model", *PLACE])
        for model, rows in scores.groupby("model"):
            scored = places(rows)
            # The Spark models begin when there are reports to fit them on.
            assert scored == (sent if model in ALWAYS else sent[-len(scored) :]), model
        models = set(scores["model"])
        assert set(ALWAYS) <= models
        assert set(ALWAYS) < models or len(sent) < 1.2 * self.settings.crimes_refit_rows, "no Spark model was fitted"
        ids = self.table("crimes/crime_reports", ["report_id"])["report_id"]
        assert ids.is_unique, "the producer sent a report twice"
        month = exports.read_month(self.soak.sources / "crimes", MONTH).reports
        in_order = month.sort_values(["occurred_at", "report_id"])["report_id"]
        assert set(ids) == set(in_order[: len(ids)]), "the producer left out a report"
        return {"reports": len(sent)}


class Channels(Topic):
    """Samples: of two sites by Kafka, and files of others into Cassandra meanwhile, which is exported at the end."""

    stream = SENSORS
    identity = ("site", "channel", "observed_at")
    month_samples = 2 * 28 * 288

    def prepare(self) -> None:
        """A month goes the whole way and models are fitted on it; those that will be sent are exported."""
        sent_months = max(1, self.soak.rows // self.month_samples)
        months = pd.period_range("2020-01", periods=1 + sent_months, freq="M")
        folder = self.soak.sources / "flow_sensors"
        self.sent_files = [write_channel(folder, f"site-{n}", list(months)) for n in (1, 2)]
        self.command("load", "sensors")
        self.command("materialize", "--select", "flow_sensors/channel_export")
        self.command("produce", "sensors", "--month", str(months[0]), "--every", "0")
        made = ("channel_messages", "channel_samples", "sites", "windows")
        self.command("materialize", "--select", " or ".join(f'key:"flow_sensors/{name}"' for name in made))
        self.command("materialize", "--select", "flow_sensors/anomaly_models", "--partition", "rule..lightgbm")
        self.command("materialize", "--select", "flow_sensors/anomaly_scores")
        every, late = 20.0, self.soak.folder / "late"
        n_late = int(self.soak.minutes * 60 * 0.9 / every)
        self.loaded = [write_channel(late, f"late-{n}", [months[0] - 1]) for n in range(n_late)]
        rows = ["--rows", str(self.soak.rate), "--every", "1s"]
        sends = [["produce", "sensors", "--month", str(month), *rows] for month in months[1:]]
        self.commands = [
            Commands(self.soak, "channel-producer", sends),
            Commands(self.soak, "loader", [["load", "sensors", str(file)] for file in self.loaded], every),
        ]

    def account(self) -> dict[str, Any]:
        sent = self.sent()
        assert places(self.table("flow_sensors/channel_messages", PLACE)) == sent
        samples = self.table("flow_sensors/channel_samples", ["batch", "version", "value", *self.identity])
        assert not len(self.table("flow_sensors/quarantined_channel_messages", PLACE))
        of_files = pd.concat(map(read_channel, self.sent_files))
        assert (samples["version"] == 1).all(), "a sample that was sent again was taken for a correction"
        self._same(samples, of_files.sort_values(["observed_at", "site", "channel"]).head(len(samples)))
        scores = self.table("flow_sensors/anomaly_scores", ["batch", "site", "observed_at", "model"])
        times = samples[["batch", "site", "observed_at"]].drop_duplicates()
        assert "rule" in set(scores["model"])
        for model, rows in scores.groupby("model"):
            assert not rows.duplicated().any(), model
            assert len(rows.merge(times)) == len(times) == len(rows), model
        self.command("materialize", "--select", "flow_sensors/channel_export")
        exported = self.table("flow_sensors/channel_export", ["value", *self.identity])
        loaded = pd.concat(map(read_channel, self.loaded))
        self._same(exported, pd.concat([of_files, loaded]))
        return {
            "messages of channels": len(sent),
            "samples": len(samples),
            "samples that were sent again": len(sent) - len(samples),
            "samples loaded meanwhile": len(loaded),
            "models of channels": scores["model"].nunique(),
        }

    def _same(self, stored: pd.DataFrame, expected: pd.DataFrame) -> None:
        columns = [*self.identity, "value"]
        pd.testing.assert_frame_equal(
            *(rows[columns].sort_values(columns, ignore_index=True) for rows in (stored, expected)), check_dtype=False
        )


def write_channel(folder: Path, site: str, months: Sequence[pd.Period]) -> Path:
    """A site's velocity every five minutes of the first 28 days of months, no two values alike; the file."""
    days = [pd.date_range(m.start_time, periods=28 * 288, freq="5min") for m in months]
    times = pd.DatetimeIndex([time for of in days for time in of])
    file = folder / site / "anomalies.csv"
    file.parent.mkdir(parents=True)
    lines = [
        f"{at},{1 + n / 10**6:.6f},{1 + n / 10**6:.6f}" for n, at in enumerate(times.strftime("%Y-%m-%d %H:%M:%S"))
    ]
    file.write_text("\n".join(["time,velocity,velocity_edited", *lines, ""]))
    (file.parent / "sites.csv").write_text(f"site,time_zone\n{site},UTC\n")
    return file


def read_channel(file: Path) -> pd.DataFrame:
    rows = pd.read_csv(file).rename(columns={"time": "observed_at", "velocity": "value"})
    rows["observed_at"] = pd.to_datetime(rows["observed_at"], utc=True)
    return rows.assign(site=file.parent.name, channel="velocity")


class Files(Load):
    """Lists of URLs that land, and are scored."""

    sensors = ("new_url_files",)
    every_s = 60.0
    rows = 500

    def __init__(self, soak: "Soak") -> None:
        super().__init__(soak)
        self.landed: dict[str, list[str]] = {}
        self._begun, self._is_over = 0.0, False

    def prepare(self) -> None:
        folder = self.soak.sources / "malicious_urls"
        folder.mkdir()
        write_lists(folder)
        self.command("materialize", "--select", "+malicious_urls/url_classifier")

    def go_on(self) -> None:
        self._begun = self._begun or time.monotonic()
        if time.monotonic() >= self._begun + len(self.landed) * self.every_s and not self._is_over:
            name = f"delivery_{len(self.landed):04}.csv"
            urls = [f"https://host{n}.example.com/{name}" for n in range(self.rows)]
            self.soak.project.land(name, urls)
            self.landed[name] = urls

    def end(self) -> None:
        self._is_over = True

    def is_caught_up(self, instance: dg.DagsterInstance) -> bool:
        known = set(instance.get_dynamic_partitions(str(LANDED_FILES.name)))
        return known == set(self.landed) == instance.get_materialized_partitions(PREDICTIONS.key)

    def account(self) -> dict[str, Any]:
        expected = sorted(url for urls in self.landed.values() for url in urls)
        for name in ("url_batches", "predictions"):
            assert sorted(self.table(f"malicious_urls/{name}", ["url"])["url"]) == expected, name
        return {"files": len(self.landed), "URLs": len(expected)}


class Soak:
    """One soak in a folder of its own.

    Attributes:
        kills: what was killed, in order.
        rows: how many each stream has to send, more than it comes to.
        memory: of all processes of the stack, in MB, before each kill.
    """

    def __init__(
        self,
        folder: Path,
        base: Settings,
        minutes: float,
        rate: int,
        seed: int,
        loads: Sequence[Callable[["Soak"], Load]] = (Crimes,),
        **own: Any,
    ) -> None:
        self.folder, self.minutes, self.rate = folder, minutes, rate
        self.random, self.kills, self.memory = random.Random(seed), list[str](), list[int]()
        self.rows = int(rate * minutes * 60)
        self.sources = folder / "sources"
        self.sources.mkdir(parents=True)
        ports = {
            "services_dir": folder / "services",
            "spark_remote": f"sc://localhost:{free_port()}",
            "kafka_servers": f"localhost:{free_port()}",
            "cassandra_points": "cassandra.invalid" if len(loads) == 1 else f"localhost:{free_port()}",
            "ui_port": free_port(),
            "reports_url": f"http://127.0.0.1:{free_port()}",
        }
        self.project = Project(folder, base.model_copy(update=ports | own), str(self.sources))
        self.settings = self.project.settings
        self.ui = Ui(self.project)
        self.stack = self._start()
        self.loads = [load(self) for load in loads]
        for load in self.loads:
            load.prepare()
        producers = [command.name for load in self.loads for command in load.commands]
        engines = [] if len(loads) == 1 else ["cassandra"]
        self.victims = (*PROCESSES, *producers, "supervisor", *engines)

    def _start(self) -> Stack:
        stack = Stack(self.project, self.folder / f"stack {len(self.kills)}.log", "--no-materialize")
        stack.wait_for(self.ui.answers, 120, "the UI answers")
        stack.wait_for(lambda: self._states() and set(self._states().values()) == {"ready"}, 120, "all is ready")
        return stack

    def _states(self) -> dict[str, str]:
        processes = read_state(self.settings.services_dir, "stack").get("processes", {})
        return {name: process["state"] for name, process in processes.items()}

    def run(self) -> dict[str, Any]:
        """Have all come in and kill, wait until all is well, account; the figures."""
        for name in {name for load in self.loads for name in load.sensors}:
            self.ui.start_sensor(name)
        began = time.monotonic()
        while time.monotonic() - began < self.minutes * 60:
            self._go_on_for(KILL_EVERY_S)
            self.memory.append(self._memory_mb())
            self._kill(self.random.choice(self.victims))
        last_kill = time.monotonic()
        for load in self.loads:
            load.end()
        wait_for(self._is_in, 120, "all has come in")
        wait_for(self._is_caught_up, HEALED_WITHIN_S, f"caught up after {self.kills}")
        figures = {
            "caught up after the last kill, s": round(time.monotonic() - last_kill),
            "kills": len(self.kills),
            "memory, MB, most in each quarter of the time": [max(part) for part in quarters(self.memory)],
        }
        for load in self.loads:
            figures |= load.account()
        return figures | self._runs()

    def _go_on_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for load in self.loads:
                load.go_on()
            time.sleep(0.5)  # the passing of time is what a soak is about

    def _is_in(self) -> bool:
        for load in self.loads:
            load.go_on()
        return all(load.is_in for load in self.loads)

    def _is_caught_up(self) -> bool:
        with self.project.instance() as instance:
            return all(load.is_caught_up(instance) for load in self.loads)

    def _kill(self, what: str) -> None:
        for command in [command for load in self.loads for command in load.commands if command.name == what]:
            if command.kill():
                self._note(what)
            return None
        if what == "supervisor":
            self.stack.kill()
            self._note(what)
            self.stack = self._start()
            return None
        pid = wait_for(lambda: self._pid(what), 60, f"a {what} to kill")
        try:
            kill_9(pid)
        except (psutil.NoSuchProcess, ProcessLookupError):  # a step or a run that has just ended
            return self._kill(what)
        self._note(what)
        return None

    def _note(self, what: str) -> None:
        self.kills.append(what)
        click.echo(f"{time.strftime('%H:%M:%S')} killed {what}")

    def _pid(self, what: str) -> int:
        if what not in ("run", "step"):
            return int(read_state(self.settings.services_dir, "stack")["processes"][what]["pid"])
        with self.project.instance() as instance:
            started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            found = [found[0] for run in started if (found := worker(instance, run))]
        if not found or what == "run":
            return found[0] if found else 0
        try:
            below = psutil.Process(found[0]).children(recursive=True)
            leaves = [p for p in below if not p.children() and "resource_tracker" not in " ".join(p.cmdline())]
        except psutil.NoSuchProcess:
            return 0
        return self.random.choice(leaves).pid if leaves else 0

    def _memory_mb(self) -> int:
        """Of all processes with these settings; what several share is counted once."""
        found, own = 0, str(self.settings.services_dir)
        for process in psutil.process_iter():
            try:
                if process.environ().get("BIGDATA_SERVICES") == own:
                    found += process.memory_full_info().pss
            except psutil.Error:
                continue  # it has ended meanwhile, or is another's
        return found // MB

    def _runs(self) -> dict[str, Any]:
        with self.project.instance() as instance:
            runs = instance.get_runs()
            assert not [r for r in runs if r.status == dg.DagsterRunStatus.STARTED and not process_lives(instance, r)]
        return {"runs": len(runs), "runs that failed": sum(not r.is_success for r in runs)}

    def close(self) -> None:
        """End what still runs."""
        for load in self.loads:
            for command in load.commands:
                command.close()
        if self.stack.process.poll() is None:
            self.stack.stop()


def quarters(values: Sequence[int]) -> list[Sequence[int]]:
    """Four parts of what was measured one after the other; fewer where there is less."""
    cuts = [len(values) * n // 4 for n in range(5)]
    return [values[first:end] for first, end in pairwise(cuts) if end > first]


def write_months(folder: Path, rows: int) -> None:
    """The sample's exports, the last of `rows` reports: its own again and again under other numbers."""
    write_sample(folder)
    source = exports.export_file(folder, MONTH)
    frame = pd.read_csv(source, dtype=str).dropna(subset=["ID"]).query("Date != 'no time'")
    copies = [frame.assign(ID=(frame["ID"].astype(int) + 10**8 * n).astype(str)) for n in range(-(-rows // len(frame)))]
    pd.concat(copies).iloc[:rows].to_csv(source, index=False)


FEW = {"batch_rows": 300, "batch_seconds": 5.0}
"""Settings for a stream that trickles: a batch every five seconds."""
EVERYTHING = {
    "loads": (Crimes, Channels, Files),
    "batch_rows": 5_000,
    "batch_seconds": 15.0,
    # At 200 reports a second, 5,000 are there after 25 s, and a fit takes 12 to 20.
    "crimes_refit_rows": 50_000,
}


@click.command()
@click.option("--minutes", default=3.0, show_default=True)
@click.option("--rate", default=60, show_default=True, help="Reports a second, and with --everything samples too.")
@click.option("--seed", default=1, show_default=True)
@click.option("--everything", is_flag=True, help="Sensors' samples, Cassandra and landing files as well.")
@click.option("--record", is_flag=True, help=f"Keep the figures in {FIGURES}.")
@click.option("--keep", is_flag=True, help="Do not delete the folder.")
def main(minutes: float, rate: int, seed: int, *, everything: bool, record: bool, keep: bool) -> None:
    """Kill something every 30 s; then every row is accounted for."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    base = settings_module.load().model_copy(update={"topics": {}})
    os.environ.pop("SPARK_CONNECT_AUTHENTICATE_TOKEN", None)
    try:
        soak = Soak(folder, base, minutes, rate, seed, **(EVERYTHING if everything else FEW))
        try:
            figures = soak.run()
        finally:
            soak.close()
        for name, value in figures.items():
            click.echo(f"{name}: {value}")
        if record:
            _record({"minutes": minutes, "rate": rate, "seed": seed, "everything": everything}, figures)
    finally:
        if keep:
            click.echo(folder)
        else:
            shutil.rmtree(folder)


def _record(scale: dict[str, Any], figures: dict[str, Any]) -> None:
    file = Path(FIGURES)
    kept = json.loads(file.read_text()) if file.exists() else {}
    where = {"date": f"{date.today():%Y-%m-%d}", "cores": os.cpu_count()}  # noqa: DTZ011 -- the reader's own day
    kept[f"seed {scale['seed']}, {scale['minutes']:g} minutes"] = {**where, "scale": scale, "figures": figures}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
