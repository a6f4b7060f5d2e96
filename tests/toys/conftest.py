"""What pages of toys are opened with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pages import FIRST_SCREEN, Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[[Path], Opened]]:
    """Open a page and note every error and every request that it makes."""
    made = []

    def open_page(path: Path) -> Opened:
        page = browser.new_page(viewport=FIRST_SCREEN)
        made.append(page)
        trouble: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return Opened(page, trouble, requests)

    yield open_page
    for page in made:
        page.close()
