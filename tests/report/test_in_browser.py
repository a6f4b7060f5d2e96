"""The page as a reader sees it: in a headless browser, from disk, with the network watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polytope_lm import report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pages import Opened
    from playwright.sync_api import Page

    from polytope_lm.codes.overview import CodeOverview
    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.predictions.clusters.result import ClustersResult

pytestmark = pytest.mark.browser


def drawn(page: Page, figure: str) -> int:
    """Marks or lines that plotly has drawn into a figure."""
    page.wait_for_selector(f'[data-figure="{figure}"] svg.main-svg')
    return page.locator(f'[data-figure="{figure}"] svg :is(.point, .js-line)').count()


def test_the_first_screen_fits_without_scrolling(
    whole: Path, visit: Callable[..., Opened], tmp_path: Path, clusters_result: Callable[..., ClustersResult]
) -> None:
    many = report.write(tmp_path / "many.html", clusters=clusters_result(tuple(range(30)), tokens=120))
    for path in (whole, many):
        page = visit(path).page
        sizes = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
        assert sizes == [800, 1280]
        panel = page.evaluate("(p => [p.scrollHeight, p.clientHeight])(document.getElementById('panel-overview'))")
        assert panel[0] <= panel[1]
        for part in (".verdict h1", ".differences", ".search-card", "footer"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= 800
    assert visit(whole).page.locator(".strip").bounding_box()["y"] < 600


def test_figures_are_drawn(
    whole: Path, visit: Callable[..., Opened], clusters_result: Callable[..., ClustersResult]
) -> None:
    page = visit(whole).page
    marks = page.locator('[data-figure="differences"] svg .point')
    page.wait_for_selector('[data-figure="differences"] svg .point')
    assert marks.count() == 2 * 3 * len(clusters_result().layers)
    assert page.locator('[data-figure="differences"] svg .xerror').count() == marks.count()
    assert page.locator('[data-figure="differences"] svg .shapelayer path').count() == 4
    assert drawn(page, "strip") == 3
    page.click("#tab-codes")
    assert drawn(page, "rates") == 8
    page.click("#tab-controls")
    assert drawn(page, "scores-0") == 15
    assert page.locator('[data-figure="scores-1"] svg').count() == 0
    page.locator("details.layer summary").nth(1).click()
    assert drawn(page, "scores-1") == 15
    page.click("#tab-crossings")
    assert drawn(page, "pair-0") == 1 + 2 * 8 + 2  # the change, two combs a layer, two stretches of one token


def test_a_strip_has_a_tick_for_every_crossing(
    whole: Path, visit: Callable[..., Opened], crossings_result: Callable[..., Crossings]
) -> None:
    pair = crossings_result()
    page = visit(whole).page
    page.wait_for_selector('[data-figure="strip"] svg.main-svg')
    ticks = page.evaluate(
        "document.querySelector('[data-figure=strip]').data.slice(1).map(t => [t.name, t.x.length / 3])"
    )
    own = pair.layer == pair.site.layer
    assert ticks == [["off", int((own & ~pair.on).sum())], ["on", int((own & pair.on).sum())]]


def test_search_shows_both_sides_in_context(
    whole: Path, visit: Callable[..., Opened], clusters_result: Callable[..., ClustersResult]
) -> None:
    table = clusters_result().tokens
    assert table is not None
    page = visit(whole).page
    page.fill("#search", "river")
    page.wait_for_selector("#search-options [role=option]")
    page.keyboard.press("ArrowDown")
    row = int(page.locator("#search-options [aria-selected=true]").get_attribute("data-row"))
    assert table["token"][row] == "river"
    page.keyboard.press("Enter")
    assert page.locator("#search-options").is_hidden()
    assert page.locator("#search-token mark").inner_text() == "river"
    for side in ("code", "cosine"):
        shown = page.locator(f'[data-side="{side}"] li mark').all_inner_texts()
        wanted = [table["token"][i] for i in table[f"L00.gate/neighbours/{side}"][row]]
        assert len(shown) == 10
        assert [a for a, b in zip(shown, wanted, strict=True) if b.isalpha()] == [b for b in wanted if b.isalpha()]
    page.select_option("#search-layer", "2")
    assert page.evaluate("location.href").endswith(f"#overview/8/{row}")
    page.fill("#search", "no such token here")
    assert page.locator("#search-options .none").is_visible()


def test_a_neighbour_becomes_the_chosen_token(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole).page
    first = page.locator('[data-side="cosine"] li button').first
    word = first.locator("mark").inner_text()
    first.click()
    assert page.locator("#search-token mark").inner_text() == word


def test_tabs_work_by_mouse_keyboard_and_address(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole).page
    names = [tab.get_attribute("data-tab") for tab in page.locator("[role=tab]").all()]
    assert names == ["overview", "controls", "clusters", "map", "codes", "crossings", "about"]
    for name in names:
        page.click(f"#tab-{name}")
        assert page.locator("[role=tabpanel]:visible").count() == 1
        assert page.locator(f"#panel-{name}").is_visible()
        assert page.locator("[role=tab][aria-selected=true]").get_attribute("data-tab") == name
    page.keyboard.press("Home")
    assert page.locator("#panel-overview").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#panel-about").is_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-controls").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-controls"


def test_addresses_open_what_they_name(
    whole: Path, visit: Callable[..., Opened], clusters_result: Callable[..., ClustersResult]
) -> None:
    table = clusters_result().tokens
    assert table is not None
    page = visit(whole, "#clusters/8/3").page
    assert page.locator("#panel-clusters").is_visible()
    assert page.locator("#cluster-title-a strong").inner_text() == "#3"
    size = int((table["L08.gate/cluster/code"] == 3).sum())
    assert f"{size} tokens" in page.locator("#cluster-title-a").inner_text()
    page = visit(whole, "#crossings/1").page
    assert page.locator('[data-pair="1"] .pair').is_visible()
    assert "<b>one</b>" in page.locator('[data-pair="1"] .pair').inner_text()
    page = visit(whole, "#overview/4/30").page
    assert page.locator("#search-layer").input_value() == "1"
    assert visit(whole, "#nowhere/<x>").page.locator("#panel-overview").is_visible()
    assert visit(whole, "#clusters/99/99/zz").page.locator("#cluster-tokens-a li").count() > 0


def test_the_other_side_opens_the_cluster_with_most_tokens_in_common(
    whole: Path, visit: Callable[..., Opened], clusters_result: Callable[..., ClustersResult]
) -> None:
    result = clusters_result()
    assert result.tokens is not None
    other = result.layers[0].best_cosine["AMI"]
    page = visit(whole, "#clusters/0/5").page
    inside = result.tokens[result.tokens["L00.gate/cluster/code"] == 5]
    votes = inside[f"L00.gate/cluster/{other}"].value_counts()
    assert page.locator("#cluster-by-b option:checked").inner_text() == other
    assert page.locator("#cluster-title-b strong").inner_text() == f"#{votes.index[0]}"
    assert f"{votes.iloc[0]} of them also" in page.locator("#cluster-title-b").inner_text()


def test_markup_in_tokens_is_text(
    whole: Path, visit: Callable[..., Opened], clusters_result: Callable[..., ClustersResult]
) -> None:
    page = visit(whole, "#overview/0/0").page
    assert page.locator("#search-token mark").inner_text() == "<script>window.hurt = 1</script>"
    for row, shown in (
        (1, "<img src=x onerror='window.hurt = 1'>"),
        (2, r"\u202egnp.exe"),
        (3, r"a\u0000b"),
        (4, r"\ud800"),
        (5, "</script><script>window.hurt = 1</script>"),
        (6, "${window.hurt = 1}"),
        (7, "{{ 7 * 7 }}"),
        (8, "👩‍💻🏳️‍🌈"),
        (9, "<!--"),
    ):
        page.fill("#search", shown)
        page.wait_for_selector("#search-options [role=option]")
        page.keyboard.press("Enter")
        assert page.locator("#search-token mark").inner_text() == shown
        assert page.evaluate("location.href").endswith(f"/{row}")
        assert page.locator("#search-token mark > bdi").count() == 1
    assert page.locator("main img, main script").count() == 0


def test_markup_in_names_is_text_in_figures_too(
    tmp_path: Path, visit: Callable[..., Opened], clusters_result: Callable[..., ClustersResult]
) -> None:
    data = clusters_result((0,), tokens=60).to_dict()
    text = "<a href='https://example.org'>x</a> &lt; %{y}"
    data["layers"][0]["representations"][2]["name"] = text
    path = report.write(tmp_path / "r.html", clusters=type(clusters_result()).from_dict(data))
    page = visit(path, "#controls").page
    page.wait_for_selector('[data-figure="scores-0"] svg .ytick')
    assert text in page.locator('[data-figure="scores-0"] .ytick').all_text_contents()
    assert page.locator("svg a").count() == 0


def test_dark_and_light_are_redrawn(whole: Path, visit: Callable[..., Opened]) -> None:
    page = visit(whole, scheme="dark").page
    page.wait_for_selector('[data-figure="differences"] svg .point')
    fill = "getComputedStyle(document.querySelector('[data-figure=differences] .point')).fill"
    dark = page.evaluate(fill)
    page.emulate_media(color_scheme="light")
    for _ in range(50):  # the page's policy forbids the eval behind wait_for_function
        if page.evaluate(fill) != dark:
            break
        page.wait_for_timeout(100)
    assert page.evaluate(fill) != dark


def test_long_lists_are_shown_in_parts(
    tmp_path: Path, visit: Callable[..., Opened], clusters_result: Callable[..., ClustersResult]
) -> None:
    result = clusters_result((0,), tokens=1500)
    assert result.tokens is not None
    result.tokens["L00.gate/cluster/code"] = 0
    page = visit(report.write(tmp_path / "r.html", clusters=result), "#clusters/0/0").page
    rows = page.locator("#cluster-tokens-a li[data-row]")
    assert rows.count() == 50
    page.click("#cluster-tokens-a .more button")
    assert rows.count() == 100
    page.click("#tab-overview")
    page.fill("#search", "a")
    assert page.locator("#search-options [role=option]").count() == 100


@pytest.mark.parametrize("size", [{"width": 390, "height": 844}, {"width": 820, "height": 1180}])
def test_small_screens_scroll_down_but_not_sideways(
    whole: Path, visit: Callable[..., Opened], size: dict[str, int]
) -> None:
    page = visit(whole, size=size).page
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.click("#tab-clusters")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@pytest.mark.parametrize("part", ["crossings", "overview", "bare clusters"])
def test_pages_with_missing_parts_work(
    part: str,
    tmp_path: Path,
    visit: Callable[..., Opened],
    clusters_result: Callable[..., ClustersResult],
    crossings_result: Callable[..., Crossings],
    overview_result: CodeOverview,
) -> None:
    result = clusters_result(tokens=60)
    parts = {
        "crossings": {"crossings": [crossings_result((4,), change=False)]},
        "overview": {"overview": overview_result},
        "bare clusters": {"clusters": type(result).from_dict(result.to_dict())},
    }
    page = visit(report.write(tmp_path / "r.html", **parts[part])).page
    page.wait_for_selector("svg.main-svg")
    for tab in page.locator("[role=tab]").all():
        tab.click()
    assert page.locator("svg.main-svg").count() > 0
