"""Both widgets in a real JupyterLab, driven in a headless browser, every request watched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab", reason="needs the extra widgets")
CHROMIUM = shutil.which("chromium")

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]

CELLS = [
    """import polytope_lm as plm
model = plm.load("tiny-gpt2")
texts = ["The loop ends when the list is empty", "A function returns a value", "The loop <b>breaks</b> early"]
codes = plm.encode(model, [*texts, *plm.documents("sample", max_documents=3)], layers=[1, 2], max_length=128)
widget = plm.widgets.neighbours(codes, k=5)
widget""",
    """path = plm.path(model, "The loop ends when the list is", "A function returns a value that is", layer=1)
plm.widgets.along(path)""",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server with a notebook; its address."""
    root = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (root / "work").mkdir()
    nbformat.write(notebook, root / "work" / "widgets.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = {name: str(root / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--IdentityProvider.token=t", f"--ServerApp.root_dir={root / 'work'}", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    with (root / "log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **homes, "PYTHONPATH": path}, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/api?token=t", timeout=5).close()  # noqa: S310 - loopback
                    break
                except OSError:
                    assert server.poll() is None, (root / "log").read_text()
                    time.sleep(0.2)
            yield f"{address}/lab/tree/widgets.ipynb?token=t"
        finally:
            server.terminate()
            server.wait(30)


def test_both_widgets_work_in_jupyterlab_and_ask_nobody_else(lab):
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.set_default_timeout(120_000)
        outside, errors = [], []
        page.on("request", lambda request: outside.append(request.url) if "//127.0.0.1:" not in request.url else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .cm-content")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # what is run before is lost
        page.locator(".jp-Notebook .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        box = page.locator(".polytope-lm").first
        box.wait_for()
        page.wait_for_timeout(300)
        page.keyboard.press("Shift+Enter")
        _neighbours(page, box)
        page.locator(".polytope-lm").nth(1).wait_for()
        _path(page.locator(".polytope-lm").nth(1))
        if folder := os.environ.get("POLYTOPE_LM_PICTURES"):
            for number, name in enumerate(("neighbours", "path")):
                page.locator(".polytope-lm").nth(number).screenshot(path=f"{folder}/widget-{name}.png")
        own = [url for url in outside if not url.startswith(("data:", "blob:"))]
        assert own == []
        assert [error for error in errors if "polytope" in error.lower()] == []
        browser.close()


def _neighbours(page, box) -> None:
    box.locator(".side").first.wait_for()
    assert box.locator(".side h3 bdi").all_inner_texts() == ["by code", "by direction"]
    assert box.locator(".side").first.locator("li").count() == 5
    box.locator("input").fill("list is empty")  # what is typed ends in the token
    page.keyboard.press("Enter")
    box.locator(".chosen mark", has_text="empty").wait_for()
    first = box.locator("[data-side=code] .bits-differ").first
    count = int(first.inner_text().split()[1])
    first.click()
    assert f"{count} of 512 bits differ" in box.locator(".differ p").first.inner_text()
    lines = box.locator(".differ p:is(.on, .off)").all_inner_texts()
    assert sum(int(line.split(": ")[1].split()[0]) for line in lines) == count
    neighbour = box.locator("[data-side=cosine] li button:not(.bits-differ)").nth(3)
    word = neighbour.locator("mark").inner_text().strip()
    row = neighbour.get_attribute("data-row")
    neighbour.click()
    page.wait_for_function(
        "([node, row]) => JSON.parse(node.dataset.shown).row === Number(row)", arg=[box.element_handle(), row]
    )
    assert box.locator(".chosen mark").inner_text().strip() == word
    box.locator("select").select_option("1")
    page.wait_for_function("node => JSON.parse(node.dataset.shown).layer === 1", arg=box.element_handle())
    box.locator("input").fill("A function ends")
    box.locator("button", has_text="read this text").click()
    cut = box.locator(".cut button")
    cut.first.wait_for()
    assert "".join(cut.all_inner_texts()).replace(" ", "") == "Afunctionends"
    assert page.evaluate("window.hurt") is None
    cut.first.click()
    box.locator(".chosen mark", has_text="A").wait_for()
    box.locator("[data-side=code] .bits-differ").last.click()
    box.locator(".differ svg").wait_for()


def _path(box) -> None:
    rows = box.locator(".strips li")
    assert rows.count() == 3
    assert "no boundary is crossed yet" in box.locator(".last").inner_text()
    totals = [int(text.split()[2]) for text in rows.locator(".crossed").all_inner_texts()]
    box.locator("input[type=range]").fill("1")
    done = [int(text.split()[0]) for text in rows.locator(".crossed").all_inner_texts()]
    assert done == totals
    assert f"{sum(totals):,} of {sum(totals):,} boundaries crossed" in box.locator(".chosen").inner_text()
    assert "likeliest next token" in box.locator(".chosen").inner_text()
    box.locator("input[type=range]").fill("0.5")
    half = [int(text.split()[0]) for text in rows.locator(".crossed").all_inner_texts()]
    assert all(0 <= some <= total for some, total in zip(half, totals, strict=True))
    assert 0 < sum(half) < sum(totals)
