"""The picture of a report's first screen that README and docs show.

polytope-lm demo --out DIR && python -m analyses.report_picture DIR/report.html docs/report.png

Needs playwright and a chromium (on the path, or CHROMIUM=/its/path). An analysis' `figure.html` is taken alike.
`--dark`, `--width` and `--pdf` show the page as other readers see it.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path


def main() -> None:
    """Write a PNG of what a reader sees first, or a PDF of all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="report.html")
    parser.add_argument("picture", type=Path, help="where the picture goes")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=800, help="of the window, in pixels")
    parser.add_argument("--tab", default="", help="another tab than the first, such as clusters")
    parser.add_argument("--dark", action="store_true", help="as where dark pages are preferred")
    parser.add_argument("--pdf", action="store_true", help="print the whole page instead")
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra's

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        scheme = "dark" if asked.dark else "light"
        page = browser.new_page(viewport={"width": asked.width, "height": asked.height}, color_scheme=scheme)
        page.goto(asked.report.resolve().as_uri() + (f"#{asked.tab}" if asked.tab else ""))
        page.wait_for_selector("html.ready")
        page.wait_for_timeout(2000)  # figures are drawn when the page is idle
        if asked.pdf:
            page.pdf(path=asked.picture, prefer_css_page_size=True, print_background=True)
        else:
            page.screenshot(path=asked.picture)
        browser.close()


if __name__ == "__main__":
    main()
