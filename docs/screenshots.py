"""The README's pictures, of a running `make run` on the sample: `make screenshots`."""

import io
from pathlib import Path

import click
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from bigdata_assets import settings as settings_module

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1_440, 900
MOST_BYTES = 300_000
CHROMIUM = {"executable_path": "/usr/bin/chromium", "args": ["--no-sandbox", "--disable-gpu", "--disable-quic"]}
PAGES = {
    "lineage": ("locations/__repository__@bigdata_assets/asset-groups/crimes/lineage", "stream_report"),
    "file": ("assets/malicious_urls/predictions?view=partitions", "sample_delivery_1.csv"),
    "stream": ("assets/crimes/stream_report", ""),
    "model_page": ("assets/models/model_page", ""),
}
"""Path of each picture's page, and a text that it waits for; of reports, their first picture."""


def main() -> None:
    """Take all of them.

    Raises:
        SystemExit: the UI does not answer, or a picture is larger than a page should have.
    """
    settings = settings_module.load()
    url = f"http://127.0.0.1:{settings.ui_port}"
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**CHROMIUM)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name, (path, text) in PAGES.items():
            page.goto(f"{url}/{path}")
            shown = page.get_by_text(text) if text else page.locator(f"img[src^='{settings.reports_url}']")
            shown.locator("visible=true").first.wait_for(timeout=60_000)
            page.wait_for_load_state("networkidle")
            _save(page, IMAGES / f"{name}.png")
        browser.close()


def _save(page: Page, file: Path) -> None:
    """With a palette: a UI has few colours, and is then a third of the size."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    if len(buffer.getvalue()) > MOST_BYTES:
        raise SystemExit(f"{file.name} has {len(buffer.getvalue()):,} bytes, more than {MOST_BYTES:,}")
    file.write_bytes(buffer.getvalue())
    click.echo(f"{file.relative_to(IMAGES.parent.parent)}: {len(buffer.getvalue()):,} bytes")


if __name__ == "__main__":
    main()
