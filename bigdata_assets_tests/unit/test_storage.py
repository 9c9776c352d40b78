"""Places of the storage, without a server: integration/test_s3.py has one."""

import os
import time

import dagster as dg
import pytest
from upath import UPath

from bigdata_assets.io_managers.files import cards, finished_folders, remove_folder, write_folder
from bigdata_assets.resources import snapshots
from bigdata_assets.resources.snapshots import SnapshotStore
from bigdata_assets.storage import FileState, delta_place, place, remove, state, states

KEY = dg.AssetKey(["branch", "model"])


@pytest.fixture(params=["folder", "object store"])
def folder(request, tmp_path):
    return place(str(tmp_path / "Straße nach Süden") if request.param == "folder" else f"memory://bucket/{tmp_path}")


def test_what_is_removed_is_what_has_the_name_and_not_what_a_pattern_finds(folder):
    for name in ("a*", "ab", "a[b]"):
        write_folder(folder / name, {"x": b"1", "card": b"{}"}, marker="card")
    remove_folder(folder / "a*", "card")
    assert {found.name for found in finished_folders(folder, "card")} == {"ab", "a[b]"}
    remove(folder / "a[b]")
    remove(folder / "a[b]")  # another one was first
    assert [found.name for found in finished_folders(folder, "card")] == ["ab"]
    assert not (folder / "a[b]").exists()


def test_a_folder_is_finished_with_its_marker_directly_in_it(folder):
    write_folder(folder / "done", {"x": b"1", "card": b'{"created_at": "2"}'}, marker="card")
    write_folder(folder / "begun" / "below", {"x": b"1", "card": b"{}"}, marker="card")
    assert [found.name for found in finished_folders(folder, "card")] == ["done"]
    assert [card for _, card in cards(finished_folders(folder, "card"), "card")] == [{"created_at": "2"}]
    assert finished_folders(folder / "nowhere", "card") == []


def test_files_are_told_by_name_and_folders_are_none(tmp_path):
    assert states(UPath(tmp_path / "nowhere")) == {}
    (tmp_path / "a.csv").write_text("url")
    (tmp_path / "folder").mkdir()
    assert states(UPath(tmp_path)) == {"a.csv": state(tmp_path / "a.csv"), "folder": None}


def test_an_object_is_told_by_its_tag_and_a_file_by_its_time():
    assert FileState(3, 10, "tag").version == FileState(3, 11, "tag").version != FileState(3, 10, "other").version
    assert FileState(3, 10).version != FileState(3, 11).version


def test_a_folder_needs_nothing_to_be_reached(tmp_path):
    assert delta_place(str(tmp_path)) == (str(tmp_path), {})


def test_fits_that_no_snapshot_names_go_once_they_are_old(tmp_path):
    store = SnapshotStore(storage=str(tmp_path), kept=2)
    for name, age_s in (("named", 2), ("old", 2), ("young", 0)):
        file = UPath(store.fit_location(KEY, name)) / "metadata" / "part-0"
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        for path in (file, file.parent, file.parent.parent):
            os.utime(path, (time.time() - age_s * snapshots.ORPHANED_S,) * 2)
    for number in range(3):
        store.save(KEY, f"s{number}", {"fit": store.fit_location(KEY, "named")}, b"")
    assert {path.name for path in (UPath(tmp_path) / "branch" / "model" / "fits").iterdir()} == {"named", "young"}
