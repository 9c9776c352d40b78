"""Reports: an HTML page, its pictures and its numbers in a folder per materialisation, shown in the UI."""

import base64
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from numbers import Integral
from typing import Any
from urllib.parse import quote

import dagster as dg
from pydantic import Field
from upath import UPath

from bigdata_assets.io_managers import provenance
from bigdata_assets.io_managers.files import cards, finished_folders, remove_folder, write_folder
from bigdata_assets.reports import Report
from bigdata_assets.storage import place

NUMBERS, TIME = "report.json", "evaluated_at"
PAGE = "index.html"
SHOWN_FIGURES = 4
UI_DPI, UI_WIDTH = 90, 420
"""Of pictures in the UI: in a window 1,440 pixels wide the asset page cuts wider ones, and takes no width from us."""
INLINE_CHARACTERS = 1_000
"""The UI shows shorter markdown at once, and longer one only behind a click on "Show Markdown"."""
INLINE_BYTES = 100_000
"""Every query of the asset page carries an inline picture whole, so a large one is left to the page."""


@dataclass(frozen=True)
class StoredReports:
    """The reports of an asset that are kept."""

    folder: UPath

    def numbers(self, besides: Collection[str] = ()) -> list[dict[str, Any]]:
        """Those of every materialisation, oldest first; of the given runs they are not read."""
        folders = finished_folders(self.folder, NUMBERS)
        wanted = [folder for folder in folders if not folder.name.endswith(tuple(besides))]
        return [numbers for _, numbers in cards(wanted, NUMBERS, TIME)]


class ReportIOManager(dg.ConfigurableIOManager):
    """Stores a `Report`, hands out `StoredReports`."""

    storage: str
    url: str = Field(description="Where `<storage>/reports` is served; empty: pictures go into the metadata itself.")
    kept: int = Field(
        default=20, ge=1, description="Reports kept of an asset or of a partition of one, the newest ones."
    )
    kept_days: float = Field(
        default=7, ge=0, description="How long all are kept: the ledger may be held up, and reads them later."
    )

    def handle_output(self, context: dg.OutputContext, obj: Report) -> None:
        # What an asset has read by itself it names itself.
        inputs = provenance.inputs(context) | obj.provenance.get("inputs", {})
        obj = replace(obj, provenance={**obj.provenance, "inputs": inputs})
        prefix = _folder_prefix(context)
        parts = [*context.asset_key.path, prefix + context.run_id]
        pngs = obj.pngs(UI_DPI, UI_WIDTH)
        files = {f"{position}.png": png for position, png in enumerate(pngs.values(), start=1)}
        numbers = obj.to_json() | {
            "asset": context.asset_key.to_user_string(),
            "run_id": context.run_id,
            "code_version": context.asset_spec.code_version,
            TIME: datetime.now(UTC).isoformat(),
        }
        files |= {PAGE: obj.to_html(obj.pngs()).encode(), NUMBERS: json.dumps(numbers, indent=2).encode()}
        parent = self._parent(context.asset_key)
        folder = parent / parts[-1]
        write_folder(folder, files, marker=NUMBERS)
        others = [other for other in finished_folders(parent, NUMBERS) if other.name.startswith(prefix)]
        old = cards([other for other in others if other.name != folder.name], NUMBERS, TIME)
        over = (datetime.now(UTC) - timedelta(days=self.kept_days)).isoformat()
        for removed, card in old[: max(len(old) + 1 - self.kept, 0)]:
            if not self.kept_days or card.get(TIME, "") <= over:
                remove_folder(removed, NUMBERS)
        base = "/".join([self.url, *(quote(part, safe="") for part in parts)])
        # In this order in the UI: pictures first.
        metadata: dict[str, Any] = {"pictures": dg.MetadataValue.md(self._markdown(pngs, base))}
        if self.url:
            metadata["page"] = dg.MetadataValue.url(f"{base}/{PAGE}")
        # Whole numbers whole: the UI shows and plots both kinds.
        metadata |= {
            name: int(value) if isinstance(value, Integral) else float(value) for name, value in obj.numbers.items()
        }
        metadata["path"] = str(folder)
        context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> StoredReports:
        return StoredReports(self._parent(context.asset_key))

    def _parent(self, key: dg.AssetKey) -> UPath:
        return place(self.storage).joinpath("reports", *key.path)

    def _markdown(self, pngs: dict[str, bytes], base: str) -> str:
        """Short markdown with the first pictures."""
        if self.url:
            pictures = [
                f"![{_plain(caption)}]({base}/{position}.png)" for position, caption in enumerate(pngs, start=1)
            ]
            while len("\n\n".join(pictures)) >= INLINE_CHARACTERS:
                pictures.pop()
        else:
            pictures = [
                f"![{_plain(caption)}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"
                for caption, png in pngs.items()
                if len(png) <= INLINE_BYTES
            ]
        return "\n\n".join(pictures[:SHOWN_FIGURES]) or "This report has no pictures."


def _folder_prefix(context: dg.OutputContext) -> str:
    """Of a partition's folders: its key made safe as a file name, since keys may hold any character."""
    if not context.has_asset_partitions:
        return ""
    keys = "+".join(sorted(context.asset_partition_keys))
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", keys)[:60]
    return f"{safe}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}-"


def _plain(caption: str) -> str:
    """A caption without the characters that mean something in markdown."""
    return re.sub(r"[\[\]()!`*_<>\\]", "", caption)
