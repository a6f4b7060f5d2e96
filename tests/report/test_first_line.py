"""What a reader meets: a plain answer, words explained, similarities, shapes, a page that prints."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from polytope_lm import report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pages import Opened

    from polytope_lm.predictions.clusters.result import ClustersResult

H1 = re.compile(r"<h1>(.*?)</h1>", re.DOTALL)


def first_line(path: Path) -> str:
    found = H1.search(path.read_text(encoding="utf-8"))
    assert found is not None
    return re.sub(r"<[^>]+>", "", found[1])


def deciding(result: ClustersResult, outcomes: list[str], low: float, high: float) -> ClustersResult:
    layers = tuple(
        replace(
            layer,
            verdict=replace(
                layer.verdict,
                outcome=outcome,
                seen=0.004,
                deciding=replace(layer.verdict.deciding, value=(low + high) / 2, low=low, high=high),
                deciding_reference="cosine of h, raw",
            ),
        )
        for layer, outcome in zip(result.layers, outcomes, strict=True)
    )
    return replace(result, layers=layers)


@pytest.mark.parametrize(
    ("outcomes", "interval", "said"),
    [
        (["supported"] * 3, (0.1, 0.2), "Here: yes, .* in all 3 layers."),
        (["behind"] * 3, (-0.2, -0.1), "Here: no, they are behind directions in all 3 layers."),
        (["no lead"] * 3, (-0.2, 0.001), "Here: no, not by an amount that matters, in all 3 layers."),
        (["refuted"] * 2, (-0.2, 0.001), "Here: no, not by an amount that matters, in both layers."),
        (["mixed"], (-0.2, -0.1), "Here: ahead in one respect and behind in another, in layer 0."),
        (["not testable"], (-0.2, 0.001), "Here: it can't be tested, for nothing here sees the label, in layer 0."),
        (["inconclusive"], (-0.2, 0.2), "Here: it stays open, these data do not decide, in layer 0."),
        (["supported", "behind", "behind"], (0.1, 0.2), r"yes in layer 0; no, they are behind in layers 2, 4\."),
    ],
)
def test_the_first_line_asks_and_answers(
    tmp_path: Path,
    clusters_result: Callable[..., ClustersResult],
    outcomes: list[str],
    interval: tuple[float, float],
    said: str,
) -> None:
    result = clusters_result(tuple(2 * i for i in range(len(outcomes))), tokens=60)
    line = first_line(report.write(tmp_path / "r.html", clusters=deciding(result, outcomes, *interval)))
    assert line.startswith("Do spline codes group tokens by meaning")
    assert re.search(said, html.unescape(line))


def test_weights_that_were_dequantised_say_so(tmp_path, clusters_result):
    result = clusters_result((0,), tokens=60)
    told = "dequantised from 4 bits (q4_k_m)"
    provenance = {**result.provenance, "weights": told}
    html = report.write(tmp_path / "r.html", clusters=replace(result, provenance=provenance)).read_text()
    assert told in html[html.index("<header>") : html.index("</header>")]
    assert told in html[html.index("<footer>") : html.index("</footer>")]


@pytest.mark.browser
def test_directions_show_their_cosine_nearest_first(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole).page
    shown = [float(one) for one in page.locator('[data-side="cosine"] .distance').all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    assert "cosine similarity, nearest first" in page.locator('[data-side="cosine"]').inner_text()
    bits = [float(one) for one in page.locator('[data-side="code"] .distance').all_inner_texts()]
    assert bits == sorted(bits)


@pytest.mark.browser
def test_words_are_explained_by_keyboard_too(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole).page
    word = page.locator("h1 abbr").first
    word.focus()
    content = word.evaluate("e => getComputedStyle(e, '::after').content")
    assert word.get_attribute("title") in content


@pytest.mark.browser
def test_hues_have_textures_in_bars_and_shapes_on_the_map(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole, "#map").page
    shapes = page.eval_on_selector_all("#panel-map .shape i", "all => all.map(e => getComputedStyle(e).clipPath)")
    assert len(set(shapes)) == len(shapes) == 9
    script = r"all => all.map(e => getComputedStyle(e).backgroundImage.replace(/rgb[^)]*\)/g, ''))"
    looks = page.eval_on_selector_all("#panel-clusters .hue i", script)
    assert len(set(looks[:8])) >= 6


@pytest.mark.browser
def test_the_map_moves_by_arrow_keys(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole, "#map/0/0").page
    page.focus("#panel-map canvas")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        if not page.evaluate("location.href").endswith("/0"):
            return
    pytest.fail("no arrow key has left the token")


@pytest.mark.browser
def test_the_page_prints_whole_and_comes_back(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole).page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("[role=tabpanel]:visible").count() == page.locator("[role=tabpanel]").count()
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("[data-figure]").count() == page.locator("[data-figure] > .plot-container").count()
    wide = page.evaluate("[...document.querySelectorAll('.figure')].map(e => e.scrollWidth - e.clientWidth)")
    assert max(wide) <= 1
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("[role=tabpanel]:visible").count() == 1
