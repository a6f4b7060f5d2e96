"""The documentation site builds without a warning, asks no other server for anything, and can be searched."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WARNING" not in done.stderr
    return out


def _links(page: Path) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8"))


def test_no_link_is_dead(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    dead = []
    for page in pages:
        if page.name == "404.html":
            continue
        here = page.relative_to(site).as_posix()
        for link in _links(page):
            path, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", path):
                continue
            target = site / unquote(urlsplit(urljoin(f"http://here/{here}", path)).path[1:])
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                dead.append((here, link))
            elif anchor and target.suffix == ".html":
                ids = re.findall(r'\b(?:id|name)="([^"]+)"', target.read_text(encoding="utf-8"))
                if unquote(anchor) not in ids and anchor != "__":
                    dead.append((here, link))
    assert not dead, dead[:5]


def test_a_reader_searches_and_nothing_leaves_the_machine(site, browser):
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        # The box listens once its script and the index are there.
        page.goto(address, wait_until="networkidle")
        box = page.get_by_role("textbox", name="Search").first
        box.click()
        box.press_sequentially("uncentred cosine")
        found = page.locator(".md-search-result__item a").first
        found.wait_for(timeout=20_000)
        assert "uncentred-cosine" in (found.get_attribute("href") or "")
        assert page.locator("img[src*='three-pigments']").evaluate("each => each.naturalWidth") > 0
        assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
        page.close()
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


def test_the_pages_for_machines_name_pages_that_are_there(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)]+)\)", text)
    assert named
    assert [each for each in named if not (ROOT / "docs" / each).is_file()] == []
