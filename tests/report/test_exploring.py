"""Maps, clusters that are linked, sorted and searched, and tables that sort, in a headless browser."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from polytope_lm import report

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from polytope_lm.predictions.clusters.result import ClustersResult

pytestmark = pytest.mark.browser

KEY = "L00.gate"


def painted(page: Page, side: int) -> int:
    """Pixels of a map that are not empty."""
    return page.evaluate(
        """side => {
            const canvas = document.querySelectorAll('#panel-map canvas')[side];
            const copy = new OffscreenCanvas(canvas.width, canvas.height);
            const pen = copy.getContext('2d', {willReadFrequently: true});
            pen.drawImage(canvas, 0, 0);
            const {data} = pen.getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
            return count;
        }""",
        side,
    )


def place(page: Page, table, side: int, row: int) -> tuple[float, float]:
    """Where a token is drawn, in the window's pixels."""
    box = page.locator("#panel-map canvas").nth(side).bounding_box()
    assert box is not None
    x, y = np.rint(1000 * np.asarray(table[f"{KEY}/map/{('code', 'cosine')[side]}"][row])) / 1000
    half = min(box["width"], box["height"]) / 2 - 10
    return box["x"] + box["width"] / 2 + x * half, box["y"] + box["height"] / 2 - y * half


def test_both_maps_are_drawn_and_a_click_picks_a_token(whole, visit, clusters_result):
    table = clusters_result().tokens
    page = visit(whole, "#map").page
    assert painted(page, 0) > 600
    assert painted(page, 1) > 600
    before = painted(page, 1)
    row = int(np.argmax([at[0] for at in table[f"{KEY}/map/code"]]))  # nothing lies beyond it
    page.mouse.click(*place(page, table, 0, row))
    assert page.evaluate("location.href").endswith(f"#map/0/{row}")
    assert page.locator("#map-tokens li").get_attribute("data-row") == str(row)
    assert painted(page, 1) > before  # lines to its neighbours on the other side, too


def test_a_frame_picks_the_tokens_inside(whole, visit, clusters_result):
    table = clusters_result().tokens
    page = visit(whole, "#map").page
    box = page.locator("#panel-map canvas").nth(1).bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] - 60, steps=3)
    page.mouse.move(middle[0] + 120, middle[1] - 120, steps=3)
    page.mouse.up()
    half = min(box["width"], box["height"]) / 2 - 10
    places = np.stack(table[f"{KEY}/map/cosine"].tolist())
    inside = ((places >= 0) & (places * half <= 120)).all(axis=1)
    picked = int(page.locator("#map-picked").inner_text().split()[0].replace(",", ""))
    assert abs(picked - inside.sum()) <= 3  # at the frame's edge, by rounding
    assert picked > 20


def test_an_address_names_a_token_of_the_map(whole, visit):
    page = visit(whole, "#map/8/33").page
    assert page.locator("#map-layer").input_value() == "2"
    assert page.locator("#map-tokens li").first.get_attribute("data-row") == "33"
    page.select_option("#map-colour", "1")
    assert page.locator("#map-colour option:checked").inner_text() == "cluster by rate-standardised code"


def test_a_result_without_places_has_no_map(tmp_path, visit, clusters_result):
    result = clusters_result(layers=(0,), tokens=120)
    without = result.tokens.drop(columns=[c for c in result.tokens if "/map/" in c])
    page = visit(report.write(tmp_path / "plain.html", clusters=replace(result, tokens=without))).page
    assert page.locator("#tab-map").count() == 0


def rows_of(result: ClustersResult, name: str) -> dict[int, set[int]]:
    assigned = result.tokens[f"{KEY}/cluster/{name}"].to_numpy()
    return {int(c): set(np.flatnonzero(assigned == c).tolist()) for c in np.unique(assigned)}


def test_the_page_says_where_a_cluster_s_tokens_went(whole, visit, clusters_result):
    result = clusters_result()
    page = visit(whole, "#clusters/0/3").page
    code, cosine = rows_of(result, "code"), rows_of(result, "centred cosine of h")
    wanted = {c: len(code[3] & rows) for c, rows in cosine.items() if code[3] & rows}
    shown = [text.split() for text in page.locator("#cluster-flows-a button").all_inner_texts()]
    assert {int(number[1:]): int(count) for number, count in shown} == wanted
    assert [int(count) for _, count in shown] == sorted(wanted.values(), reverse=True)
    last = page.locator("#cluster-flows-a button").last
    number = last.inner_text().split()[0]
    last.click()
    assert page.locator("#cluster-title-b strong").inner_text() == number
    assert page.locator("#cluster-title-a strong").inner_text() == "#3"
    assert page.locator("#cluster-flows-a [aria-pressed=true]").inner_text().split()[0] == number


def test_clusters_are_sorted_and_searched(whole, visit, clusters_result):
    page = visit(whole, "#clusters/0").page
    cells = "#cluster-table-a li[data-cluster]"
    sizes = [int(text) for text in page.locator(f"{cells} .size").all_inner_texts()]
    assert sizes == sorted(sizes, reverse=True)
    page.select_option("#cluster-order-a", "purity")
    purity = [int(text.split("%")[0]) for text in page.locator(f"{cells} .top").all_inner_texts()]
    assert purity == sorted(purity, reverse=True)
    assert purity[0] > purity[-1]
    page.fill("#cluster-filter-a", "Lisbon")
    table = clusters_result().tokens
    with_it = set(table.loc[table["token"] == "Lisbon", f"{KEY}/cluster/code"])
    found = {int(item.get_attribute("data-cluster")) for item in page.locator(cells).all()}
    assert found == with_it
    page.fill("#cluster-filter-a", "#7")
    assert [item.get_attribute("data-cluster") for item in page.locator(cells).all()] == ["7"]
    page.fill("#cluster-filter-a", "no such thing")
    assert page.locator("#cluster-table-a .none").is_visible()


def test_tables_sort_by_a_click_and_go_back(whole, visit):
    page = visit(whole, "#controls").page
    table = page.locator("table.sortable").first
    original = table.locator("tbody th bdi").all_inner_texts()
    head = table.locator("thead button").nth(1)
    head.click()
    cells = table.locator("tbody tr td:nth-child(2)")
    values = [float(cell.split()[0]) for cell in cells.all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 2
    head.click()
    assert [float(cell.split()[0]) for cell in cells.all_inner_texts()] == values[::-1]
    assert table.locator("th[aria-sort=ascending]").count() == 1
    head.click()
    assert table.locator("tbody th bdi").all_inner_texts() == original
