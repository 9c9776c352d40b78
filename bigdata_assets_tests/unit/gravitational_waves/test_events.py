import http.server
import json
import threading
from functools import partial
from pathlib import Path

import pytest

from bigdata_assets.gravitational_waves.logic.strain import events
from bigdata_assets.gravitational_waves.logic.strain.strain import StrainFileError

GPS_S = 1_126_259_462.4


def put_file(folder: Path, detector: str, start: int = 1_126_259_446) -> None:
    (folder / events.FOLDER).mkdir(exist_ok=True)
    (folder / events.FOLDER / f"{detector[0]}-{detector}_GWOSC_4KHZ_R1-{start}-32.hdf5").touch()


def test_an_event_may_have_the_version_of_its_entry(tmp_path):
    events.add(tmp_path, events.Event("GW150914-v3", GPS_S))
    put_file(tmp_path, "H1")
    assert events.keys(tmp_path) == ["GW150914-v3-H1"]
    assert events.parse("GW150914-v3-H1") == ("GW150914-v3", "H1")
    assert events.file_of(tmp_path, "GW150914-v3-H1").name.startswith("H-H1_")


def test_an_event_is_kept_and_replaced_by_its_name(tmp_path):
    assert events.read(tmp_path) == {}
    first = events.Event("GW150914", GPS_S, (36.0, 29.0), (0.3, -0.4))
    events.add(tmp_path, first)
    events.add(tmp_path, events.Event("GW170814", 1_186_741_861.5))
    events.add(tmp_path, events.Event("GW170814", 1_186_741_861.6))
    assert events.read(tmp_path) == {"GW150914": first, "GW170814": events.Event("GW170814", 1_186_741_861.6)}


def test_keys_are_of_the_detectors_that_have_a_file_of_that_time(tmp_path):
    events.add(tmp_path, events.Event("GW150914", GPS_S))
    events.add(tmp_path, events.Event("GW170814", 1_186_741_861.5))
    put_file(tmp_path, "L1")
    put_file(tmp_path, "H1", start=1)
    assert events.keys(tmp_path) == ["GW150914-L1"]
    assert events.without_files(tmp_path) == ["GW170814"]
    put_file(tmp_path, "H1")
    assert events.keys(tmp_path) == ["GW150914-H1", "GW150914-L1"]
    assert events.parse("GW150914-L1") == ("GW150914", "L1")


@pytest.mark.parametrize(
    "content",
    ["[]", "{"],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, content):
    put_file(tmp_path, "H1")
    (tmp_path / events.FOLDER / events.FILE).write_text(content)
    with pytest.raises(StrainFileError, match=events.FILE):
        events.read(tmp_path)
    with pytest.raises(StrainFileError, match=events.FILE):
        events.add(tmp_path, events.Event("GW150914", GPS_S))


@pytest.mark.parametrize(
    "entry",
    ["{}", "3", '{"tevent": "soon"}', '{"tevent": 1, "m1": null, "m2": null}', '{"tevent": 1, "m1": -3, "m2": 2}'],
)
def test_an_odd_entry_is_left_out_and_the_others_stay(tmp_path, entry, caplog):
    put_file(tmp_path, "H1")
    (tmp_path / events.FOLDER / events.FILE).write_text(
        f'{{"ODD": {entry}, "../x": {{"tevent": 1}}, "GW150914": {{"tevent": {GPS_S}}}}}'
    )
    assert events.read(tmp_path) == {"GW150914": events.Event("GW150914", GPS_S)}
    assert "'ODD' is left out" in caplog.text
    assert "'../x' is left out" in caplog.text


def test_what_is_known_of_an_event_stays_when_it_is_added_again(tmp_path):
    events.add(tmp_path, events.Event("GW150914", GPS_S, (41.7, 29.2), (0.3, -0.7)))
    events.add(tmp_path, events.Event("GW150914", GPS_S + 0.1))
    assert events.read(tmp_path)["GW150914"] == events.Event("GW150914", GPS_S + 0.1, (41.7, 29.2), (0.3, -0.7))


@pytest.mark.parametrize("name", ["", "../../x", "GW-1", "GW 1", "GW-v", "GW-v3-v3", "x" * 41])
def test_a_name_that_cannot_be_a_partition_is_refused(tmp_path, name):
    with pytest.raises(StrainFileError, match="an event's name is"):
        events.add(tmp_path, events.Event(name, GPS_S))
    with pytest.raises(StrainFileError, match="an event's name is"):
        events.fetch(tmp_path, name)


@pytest.fixture
def gwosc(tmp_path):
    """A server that answers as GWOSC's API does for one event; no other can be reached from a test."""
    folder = tmp_path / "server"
    api = folder / "api/v2/event-versions"
    (api / "GW150914").mkdir(parents=True)
    files = ["H-H1_GWOSC_4KHZ_R1-1126259447-32.hdf5", "L-L1_GWOSC_4KHZ_R1-1126259447-32.hdf5"]
    handler = partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    host = f"http://127.0.0.1:{server.server_port}"
    for name in files:
        (folder / name).write_bytes(b"strain of " + name.encode())
    results = [{"download_url": f"{host}/{name}"} for name in [*files, "../../evil.sh"]]
    (api / "GW150914" / "strain-files").write_text(json.dumps({"num_pages": 1, "results": results, "next": None}))
    (api / "GW150914" / "index.html").write_text(json.dumps({"name": "GW150914", "gps": GPS_S, "run": "O1"}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield host
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


def test_an_event_is_fetched_with_the_files_of_all_its_detectors(tmp_path, gwosc):
    events.fetch(tmp_path, "GW150914", (36.0, 29.0), host=gwosc)
    assert events.keys(tmp_path) == ["GW150914-H1", "GW150914-L1"]
    assert events.read(tmp_path)["GW150914"] == events.Event("GW150914", GPS_S, (36.0, 29.0))
    stored = {path.name: path.read_bytes() for path in (tmp_path / events.FOLDER).iterdir()}
    assert set(stored) == {
        "H-H1_GWOSC_4KHZ_R1-1126259447-32.hdf5",
        "L-L1_GWOSC_4KHZ_R1-1126259447-32.hdf5",
        events.FILE,
        f"{events.FILE}.lock",
    }, "only what is named as strain"
    assert stored["H-H1_GWOSC_4KHZ_R1-1126259447-32.hdf5"].startswith(b"strain of H-H1")


def test_an_event_that_gwosc_does_not_know_is_not_added(tmp_path, gwosc):
    with pytest.raises(StrainFileError, match="gave no strain of GW999999"):
        events.fetch(tmp_path, "GW999999", host=gwosc)
    assert events.read(tmp_path) == {}
