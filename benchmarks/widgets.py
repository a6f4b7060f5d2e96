"""The neighbours' widget with 20,000 tokens: how long a reader waits, beside the same widget with 2,000.

Run with `python -m benchmarks.widgets [--tokens 20000] [--json]`; needs the extra `widgets`, playwright and a chromium.
The widget's own module runs in a page; what it asks is answered by its own Python half through the browser's debugging
pipe, which stands for the notebook's connection to its kernel. Codes and pre-activations are random, of GPT-2's width.
*Search* is the time from a letter typed until the frame that shows its matches; *open* from a token chosen until the
frame that shows both sides; a lag above about 100 ms is felt.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.codes.codes import Codes
from polytope_lm.codes.hamming import hamming
from polytope_lm.models.sites import Premises, Site

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTH, FEW, REPEATS, FELT = 3072, 2000, 9, 100.0
PAGE = """<!doctype html><meta charset="utf-8"><style>%s</style><div id="here"></div><script type="module">
%s
const listeners = [];
const state = JSON.parse(await window.start());
window.model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; },
  save_changes: async () => {
    state.answer = JSON.parse(await window.asked(JSON.stringify(state.query)));
    listeners.forEach((listener) => listener());
  },
  on: (_, listener) => listeners.push(listener),
  off: () => {},
};
widget.render({ model: window.model, el: document.getElementById("here") });
document.documentElement.dataset.ready = "yes";
</script>"""
SEARCH = """async (text) => {
    const field = document.querySelector('#here input');
    const start = performance.now();
    field.value = text;
    field.dispatchEvent(new Event('input'));
    await new Promise((shown) => requestAnimationFrame(() => setTimeout(shown, 0)));
    return performance.now() - start;
}"""
OPEN = """async (rank) => {
    const before = document.getElementById('here').dataset.shown;
    const start = performance.now();
    document.querySelectorAll('#here .side li button:first-child')[rank].click();
    while (document.getElementById('here').dataset.shown === before) await new Promise((r) => setTimeout(r, 0));
    await new Promise((shown) => requestAnimationFrame(() => setTimeout(shown, 0)));
    return performance.now() - start;
}"""


def random_codes(tokens: int) -> Codes:
    """Return codes and pre-activations of so many tokens of made-up words."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal((tokens, WIDTH), dtype=np.float32)
    words = np.array(["".join(rng.choice(list("abcdeirstnow"), rng.integers(2, 9))) for _ in range(3000)])
    per, rows, texts = 200, [], []
    for document in range(-(-tokens // per)):
        text, place = "", 0
        for position in range(min(per, tokens - document * per)):
            word = str(rng.choice(words))
            text += f" {word}"
            rows.append((document, position, place, place + len(word) + 1, 0, f" {word}"))
            place += len(word) + 1
        texts.append(text)
    table = pd.DataFrame(rows, columns=["document", "position", "start", "end", "token_id", "token"])
    premises = Premises("smooth", "gelu_new", biased=True, norm="LayerNorm")
    site = Site(8, "pre", "blocks.8.mlp.hook_pre", WIDTH, 768, premises)
    ids = [str(n) for n in range(len(texts))]
    return Codes((site,), table, {site.key: hamming.pack(h > 0)}, ids, texts, ("h",), {}, {f"{site.key}.h": h})


def waits(page: Page, tokens: int, folder: Path) -> dict[str, float]:
    """Return the median waits in milliseconds, and how many requests left the page."""
    widget = plm.widgets.neighbours(random_codes(tokens), k=10)
    told = {name: getattr(widget, name) for name in ("tokens", "layers", "query", "answer", "reads")}

    def asked(query: str) -> str:
        widget.query = json.loads(query)
        return json.dumps(widget.answer)

    page.expose_function("start", lambda: json.dumps(told))
    page.expose_function("asked", asked)
    file = folder / f"{tokens}.html"
    module = widget._esm.replace("export default", "const widget =")
    file.write_text(PAGE % (widget._css, module), encoding="utf-8")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.evaluate(SEARCH, "a")  # the first search lowers all texts, once
    found = {
        "search, one more letter": median(page.evaluate(SEARCH, text) for text in ("s", "st", "w", "wo", "e") * 2),
        "open a token": median(page.evaluate(OPEN, rank % 10) for rank in range(REPEATS)),
    }
    return {**found, "requests that leave the page": float(len([url for url in requests if url != file.as_uri()]))}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=int, default=20_000, help="(%(default)s)")
    asked = parser.parse_args()
    machine = describe()
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra's

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        few, many = (waits(browser.new_page(), n, Path(folder)) for n in (FEW, asked.tokens))
        browser.close()
    bounds = {"search, one more letter": FELT, "open a token": FELT, "requests that leave the page": 0}
    figures = [
        Figure(name, many[name], "" if not most else "ms", few[name], f"{FEW:,} tokens", must=most, bound="at most")
        for name, most in bounds.items()
    ]
    report(figures, asked.json, machine)


if __name__ == "__main__":
    main()
