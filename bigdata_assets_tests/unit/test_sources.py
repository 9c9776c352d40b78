import functools
import http.server
import threading

import pytest

from bigdata_assets.gravitational_waves.source import SOURCE as WAVES
from bigdata_assets.malicious_urls.source import SOURCE as URLS
from bigdata_assets.sources import SAMPLE_EFFORT, Source, Sources, SourceUnavailableError


def test_a_sample_is_made_once_and_is_the_same_every_time(tmp_path):
    one = Sources(location="sample", cache=str(tmp_path / "one")).folder(URLS)
    two = Sources(location="sample", cache=str(tmp_path / "two")).folder(URLS)
    written = (one / "malicious_phish.csv").stat().st_mtime_ns
    assert (one / "malicious_phish.csv").read_bytes() == (two / "malicious_phish.csv").read_bytes()
    Sources(location="sample", cache=str(tmp_path / "one")).folder(URLS)
    assert (one / "malicious_phish.csv").stat().st_mtime_ns == written


def test_a_sample_that_fails_in_the_making_leaves_nothing(tmp_path, monkeypatch):
    from bigdata_assets.malicious_urls import sample

    def broken(folder):
        (folder / "malicious_phish.csv").write_text("url,ty")
        raise OSError("disk full")

    monkeypatch.setattr(sample, "write_sample", broken)
    sources = Sources(location="sample", cache=str(tmp_path))
    with pytest.raises(OSError, match="disk full"):
        sources.folder(URLS)
    assert not list(tmp_path.rglob("*.csv"))


def test_official_says_how_to_get_what_only_a_person_can_download(tmp_path):
    with pytest.raises(SourceUnavailableError, match=r"kaggle.*malicious_phish\.csv"):
        Sources(location="official", cache=str(tmp_path)).folder(URLS)


def test_a_folder_without_the_branch_is_named(tmp_path):
    with pytest.raises(SourceUnavailableError, match="malicious_urls"):
        Sources(location=str(tmp_path), cache=str(tmp_path)).folder(URLS)


def test_a_download_that_fails_says_what_is_missing_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    sources = Sources(location="official", cache=str(tmp_path))
    with pytest.raises(SourceUnavailableError, match=r"trainingsetv1d1\.h5.*1486046.*download by hand into"):
        sources.folder(WAVES)
    assert not any(sources.folder(WAVES, download=False).iterdir())


def test_what_is_there_is_not_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    sources = Sources(location="official", cache=str(tmp_path))
    folder = sources.folder(WAVES, download=False)
    for name in ("trainingsetv1d1.h5", "trainingset_v1d1_metadata.csv"):
        (folder / name).touch()
    assert sources.folder(WAVES) == folder


def test_of_a_publishers_files_those_that_are_asked_for_are_downloaded_once(tmp_path):
    (tmp_path / "publisher").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "publisher" / name).write_text(name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "publisher")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    a, b, absent = (f"http://127.0.0.1:{server.server_port}/{name}" for name in ("a.csv", "b.csv", "c.csv"))
    source, sources = Source("cats", "", urls=(a, b, absent)), Sources(location="official", cache=str(tmp_path))

    folder = sources.folder(source, only=[a])
    assert [path.name for path in folder.iterdir()] == ["a.csv"]
    assert sources.folder(source, only=[a, b]) == folder
    with pytest.raises(SourceUnavailableError, match=r"c\.csv could not be downloaded.*404.*by hand into"):
        sources.folder(source)
    server.shutdown()
    server.server_close()

    assert sources.folder(source, only=[a, b]) == folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.csv": "a.csv", "b.csv": "b.csv"}


def test_reports_make_few_repeats_of_the_sample_unless_more_are_asked_for(tmp_path):
    sample, real = (Sources(location=location, cache=str(tmp_path)) for location in ("sample", str(tmp_path)))
    assert (sample.effort(None, 5), sample.effort(None, 3, few=2), sample.effort(7, 5)) == (1, 2, 7)
    assert (real.effort(None, 5), real.effort(None, 3, few=2), real.effort(7, 5)) == (5, 3, 7)
    assert sample.effort_told(4, None) == SAMPLE_EFFORT
    assert sample.effort_told(4, 4) == real.effort_told(4, None) == ""
