"""A soak: the whole stack with a producer, something killed with -9 every so often, and every row accounted for."""

import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pandas as pd
import psutil
from deltalake import DeltaTable

from bigdata_assets import settings as settings_module
from bigdata_assets.crimes.logic import exports
from bigdata_assets.crimes.partitions import ARREST_MODELS, CRIMES
from bigdata_assets.crimes.sample import write_sample
from bigdata_assets.resources.kafka import KafkaResource, KafkaUnreachableError
from bigdata_assets.run_launcher import process_lives, worker
from bigdata_assets.services.supervisor import free_port, read_state
from bigdata_assets.settings import Settings
from bigdata_assets.streams.batches import parse
from bigdata_assets.streams.planner import Planner
from bigdata_assets_tests.conftest import kill_9, wait_for
from bigdata_assets_tests.integration.conftest import Project
from bigdata_assets_tests.stack import Stack, Ui

KILL_EVERY_S = 30
HEALED_WITHIN_S = 180
VICTIMS = ("code-server", "webserver", "daemon", "kafka", "spark-connect", "run", "step", "producer", "supervisor")
MONTH = "2016-01"
ALWAYS = ("majority", "iucr_rate", "online_sgd")


class Soak:
    """One soak in a folder of its own.

    Attributes:
        kills: what was killed, in order.
    """

    def __init__(self, folder: Path, base: Settings, minutes: float, rate: int, seed: int) -> None:
        self.folder, self.minutes, self.rate = folder, minutes, rate
        self.random, self.kills = random.Random(seed), list[str]()
        (folder / "sources" / "crimes").mkdir(parents=True)
        write_months(folder / "sources" / "crimes", int(rate * minutes * 60))
        own = {
            "services_dir": folder / "services",
            "spark_remote": f"sc://localhost:{free_port()}",
            "kafka_servers": f"localhost:{free_port()}",
            "cassandra_points": "cassandra.invalid",  # another stream's
            "ui_port": free_port(),
            "reports_url": f"http://127.0.0.1:{free_port()}",
            "batch_rows": 300,
            "batch_seconds": 5.0,
        }
        self.project = Project(folder, base.model_copy(update=own), str(folder / "sources"))
        self.settings = self.project.settings
        self.planner = Planner(CRIMES, self.settings, KafkaResource.of(self.settings))
        self.ui = Ui(self.project)
        self.stack = self._start()
        self._produce()

    def _start(self) -> Stack:
        stack = Stack(self.project, self.folder / f"stack {len(self.kills)}.log", "--no-materialize")
        stack.wait_for(self.ui.answers, 120, "the UI answers")
        stack.wait_for(lambda: self._states() and set(self._states().values()) == {"ready"}, 120, "all is ready")
        return stack

    def _states(self) -> dict[str, str]:
        processes = read_state(self.settings.services_dir, "stack").get("processes", {})
        return {name: process["state"] for name, process in processes.items()}

    def _produce(self) -> None:
        options = f"--month {MONTH} --resume --rows {self.rate} --every 1s".split()
        with (self.folder / "producer.log").open("a") as log:
            self.producer = self.project.cli("produce", "crimes", *options, output=log)

    def run(self) -> dict[str, Any]:
        """Produce and kill, wait until all is well, account; the figures."""
        self.ui.start_sensor("new_crime_batches")
        began = time.monotonic()
        while time.monotonic() - began < self.minutes * 60:
            self._wait(KILL_EVERY_S)
            self._kill(self.random.choice(VICTIMS))
        last_kill = time.monotonic()
        self._produce_to_the_end()
        wait_for(self._is_caught_up, HEALED_WITHIN_S, f"caught up after {self.kills}")
        figures = {
            "caught up after the last kill, s": round(time.monotonic() - last_kill),
            "kills": len(self.kills),
        }
        return figures | self.account()

    def _wait(self, seconds: float) -> None:
        """A producer that cannot go on, since the broker is away, is started again as a user's service would."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                if self.producer.wait(left) != 0:
                    time.sleep(1)
                    self._produce()
                else:
                    time.sleep(left)
            except subprocess.TimeoutExpired:
                return

    def _kill(self, what: str) -> None:
        if what == "supervisor":
            self.stack.kill()
            self._note(what)
            self.stack = self._start()
            return None
        if what == "producer":
            if self.producer.poll() is None:
                kill_9(self.producer.pid)
                self._note(what)
            self._produce()
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

    def _produce_to_the_end(self) -> None:
        wait_for(self._has_sent_all, 120, "the producer has sent all")

    def _has_sent_all(self) -> bool:
        code = self.producer.poll()
        if code is None:
            return False
        if code == 0:
            return True
        time.sleep(1)
        self._produce()
        return False

    def _is_caught_up(self) -> bool:
        try:
            held = self.planner.kafka.offsets(self.settings.topic("crimes"))
        except KafkaUnreachableError:
            return False
        with self.project.instance() as instance:
            states = self.planner.states(instance)
            ends = sum(len(parse(key)) for key in states)
            learnt = instance.get_materialized_partitions(ARREST_MODELS)
        return ends == sum(o.end for o in held.values()) and set(states.values()) == {"done"} and learnt == set(states)

    def account(self) -> dict[str, Any]:
        """Every message that the topic has is in each table once, and every report was sent once."""
        held = self.planner.kafka.offsets(self.settings.topic("crimes"))
        sent = sorted((partition, offset) for partition, o in held.items() for offset in range(o.begin, o.end))
        place = ["kafka_partition", "kafka_offset"]
        for name in ("crime_messages", "crime_reports"):
            rows = self._table(name)
            assert sorted(rows[place].itertuples(index=False, name=None)) == sent, name
        scores = self._table("arrest_scores")
        for model, rows in scores.groupby("model"):
            scored = sorted(rows[place].itertuples(index=False, name=None))
            # The Spark models begin when there are reports to fit them on.
            assert scored == (sent if model in ALWAYS else sent[-len(scored) :]), model
        assert set(ALWAYS) < set(scores["model"])
        ids = self._table("crime_reports")["report_id"]
        assert ids.is_unique, "the producer sent a report twice"
        assert set(ids) == set(exports.read_month(self.folder / "sources" / "crimes", MONTH).reports["report_id"])
        with self.project.instance() as instance:
            runs = instance.get_runs()
            assert not [r for r in runs if r.status == dg.DagsterRunStatus.STARTED and not process_lives(instance, r)]
        return {"messages": len(sent), "runs": len(runs), "runs that failed": sum(not r.is_success for r in runs)}

    def _table(self, name: str) -> pd.DataFrame:
        return DeltaTable(f"{self.settings.storage}/crimes/{name}").to_pyarrow_table().to_pandas()

    def close(self) -> None:
        """End what still runs."""
        self.producer.kill()
        self.producer.wait()
        if self.stack.process.poll() is None:
            self.stack.stop()


def write_months(folder: Path, rows: int) -> None:
    """The sample's exports, the last of `rows` reports: its own again and again under other numbers."""
    write_sample(folder)
    source = exports.export_file(folder, MONTH)
    frame = pd.read_csv(source, dtype=str).dropna(subset=["ID"]).query("Date != 'no time'")
    copies = [frame.assign(ID=(frame["ID"].astype(int) + 10**8 * n).astype(str)) for n in range(-(-rows // len(frame)))]
    pd.concat(copies).iloc[:rows].to_csv(source, index=False)


@click.command()
@click.option("--minutes", default=3.0, show_default=True)
@click.option("--rate", default=60, show_default=True, help="Reports a second.")
@click.option("--seed", default=1, show_default=True)
@click.option("--keep", is_flag=True, help="Do not delete the folder.")
def main(minutes: float, rate: int, seed: int, *, keep: bool) -> None:
    """Kill something every 30 s; then every row is accounted for."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    base = settings_module.load().model_copy(update={"topics": {"crimes": "crimes"}})
    os.environ.pop("SPARK_CONNECT_AUTHENTICATE_TOKEN", None)
    soak = Soak(folder, base, minutes, rate, seed)
    try:
        for name, value in soak.run().items():
            click.echo(f"{name}: {value}")
    finally:
        soak.close()
        if keep:
            click.echo(folder)
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
