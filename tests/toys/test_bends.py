"""The sliders: the tent doubles its pieces, and the page, moved in a real browser, draws what Python computes."""

from __future__ import annotations

import numpy as np
import pytest

from polytope_lm import toys
from polytope_lm.errors import PolytopeError
from polytope_lm.toys.bends import BENDS, OUT, WEIGHTS, folded, sliders


def applied(x, weights, bends, out, depth):
    """The layer, written out."""
    for _ in range(depth):
        x = sum(v * np.maximum(w * (x - p), 0) for w, p, v in zip(weights, bends, out, strict=True))
    return x


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_pieces_are_the_functions_own(depth):
    weights, bends, out = (1.5, -2.0, 3.0), (0.2, 0.7, 0.4), (1.0, 0.5, -1.2)
    found = folded(weights, bends, out, depth)
    x = np.linspace(-0.25, 1.25, 5001)
    np.testing.assert_allclose(np.interp(x, found.x, found.y), applied(x, weights, bends, out, depth), atol=1e-12)
    slopes = np.diff(applied(x, weights, bends, out, depth)) / np.diff(x)
    inside = np.searchsorted(found.x, x[:-1], side="right") == np.searchsorted(found.x, x[1:], side="right")
    kinks = np.unique(np.round(slopes[inside], 6))
    assert len(kinks) <= found.pieces


def test_the_tent_doubles():
    assert [folded(depth=depth, span=(0, 1)).pieces for depth in (1, 2, 3, 4, 5)] == [2, 4, 8, 16, 32]


def test_a_trained_networks_line_has_every_bend():
    goal = toys.task("sine", 60)
    (trained,) = toys.fit(goal, (7, 5), [3], steps=60)
    found = toys.line(trained.network, goal.window[:2])
    x = np.linspace(-6, 6, 20_001)
    y = trained.network.output(x[:, None])[:, 0]
    np.testing.assert_allclose(np.interp(x, found.x, found.y), y, atol=1e-9)
    flips = sum((np.diff(h > 0, axis=0) != 0).sum() for h in trained.network.pre(x[:, None]))
    assert len(found.x) - 2 == len(found.layer) == flips
    (drawn,) = toys.broken_line(found.x, found.y).data
    assert list(drawn.x) == found.x.tolist()
    with pytest.raises(PolytopeError, match="reads 2 numbers"):
        toys.line(toys.exact_xor(), (0, 1))


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(PolytopeError, match="2 weights, 3 bends"):
        folded((1, 2))
    with pytest.raises(PolytopeError, match="depth=7"):
        folded(depth=7)
    with pytest.raises(PolytopeError, match="no length"):
        folded(span=(1, 1))
    with pytest.raises(PolytopeError, match="can't be written"):
        toys.save_sliders("/no/such/directory/page.html")


def move(page, slider, value):
    page.evaluate(
        "([id, value]) => { const s = document.getElementById(id); s.value = value;"
        " s.dispatchEvent(new Event('input')); }",
        [slider, value],
    )


@pytest.mark.browser
def test_the_page_is_moved_and_draws_what_python_computes(tmp_path, opened):
    page, trouble, requests = opened(toys.save_sliders(tmp_path / "sliders.html"))
    assert page.inner_text("#told") == "3 pieces at depth 1"
    before = page.evaluate("document.getElementById('graph').toDataURL()")
    page.focus("#depth")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#told") == f"{folded(depth=2).pieces} pieces at depth 2"
    move(page, "weight", "2.5")
    move(page, "bend", "0.35")
    move(page, "depth", "3")
    page.select_option("#neuron", index=2)
    move(page, "out", "-0.75")
    found = folded((WEIGHTS[0], 2.5, WEIGHTS[2]), (BENDS[0], 0.35, BENDS[2]), (OUT[0], OUT[1], -0.75), 3)
    theirs = page.evaluate("window.fold")
    x, y = (np.array([point[axis] for point in theirs["points"]]) for axis in "xy")
    np.testing.assert_allclose(np.interp(found.x, x, y), found.y, atol=1e-9)
    np.testing.assert_allclose(np.interp(x, found.x, found.y), y, atol=1e-9)
    assert theirs["pieces"] == found.pieces
    assert page.evaluate("document.getElementById('graph').toDataURL()") != before
    page.click("#again")
    for depth in range(1, 6):  # corners of one application that are bends of the next
        move(page, "depth", str(depth))
        assert page.evaluate("window.fold.pieces") == folded(depth=depth).pieces == 2**depth + 2 - (depth == 1)
    move(page, "depth", "1")
    assert page.inner_text("#told") == "3 pieces at depth 1"
    assert trouble == []
    assert len(requests) == 1


def test_the_notebooks_sliders_draw_anew():
    pytest.importorskip("ipywidgets", reason="needs the extra docs")
    widget = sliders()
    names = [child.description for child in widget.children if hasattr(child, "description")]
    assert names == ["neuron", "weight", "bend", "out", "depth"]
    assert widget.kwargs_widgets[1].value == WEIGHTS[1]
