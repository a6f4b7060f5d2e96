"""A page that a browser has opened, and what went wrong in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from playwright.sync_api import Page

FIRST_SCREEN = {"width": 1280, "height": 800}


class Opened(NamedTuple):
    page: Page
    trouble: list[str]
    requests: list[str]
