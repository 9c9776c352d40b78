"""Small files beside the tables, through fsspec: a folder below BIGDATA_STORAGE or an object store alike."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from upath import UPath

from bigdata_assets.storage import is_local, make_parents, remove


def write_file(path: UPath, data: bytes) -> None:
    """Write a file that is seen whole or not at all."""
    if not is_local(path):
        path.write_bytes(data)  # an object is put whole
        return
    make_parents(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def write_folder(folder: UPath, files: Mapping[str, bytes], marker: str) -> None:
    """Write a folder's files, the marker last: a folder without it was never finished, and nobody reads it.

    Object stores have no rename of folders, so that a temporary folder moved into place would not do everywhere.
    """
    for name, data in files.items():
        if name != marker:
            write_file(folder / name, data)
    write_file(folder / marker, files[marker])


def finished_folders(parent: UPath, marker: str) -> list[UPath]:
    """The folders below `parent` that have their marker, in any order."""
    # By one listing: an object store would be asked for each of the markers.
    root = parent.path.rstrip("/")
    names = [path.removeprefix(f"{root}/").split("/") for path in parent.fs.find(root)]
    return [parent / name[0] for name in names if name[1:] == [marker]]


def cards(folders: Iterable[UPath], marker: str, time: str = "created_at") -> list[tuple[UPath, dict[str, Any]]]:
    """Folders with what their marker says, oldest first by the time in it.

    Not by the file system's time, which a restored copy has anew: that decides among those that tell none, the oldest.
    """
    found = {}
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # another run has removed it
            card, status = json.loads((folder / marker).read_bytes()), (folder / marker).stat()
            found[card.get(time, ""), status.st_mtime, folder.name] = folder, card
    return [found[age] for age in sorted(found)]


def remove_folder(folder: UPath, marker: str) -> None:
    """Remove a folder with all below it, the marker first: nobody reads what is half removed."""
    with contextlib.suppress(FileNotFoundError):  # another run removes it too
        folder.fs.rm_file((folder / marker).path)
    remove(folder)
