"""What is counted of toy networks: breakpoints are where the network bends, shares are of the seeds."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label
from scipy.stats import rankdata

from analyses import toys as analysis
from polytope_lm import toys


def test_breakpoints_are_where_the_slope_changes():
    goal = toys.task("sine", 100)
    (trained,) = toys.fit(goal, (6, 5), [0], steps=100)
    at = np.sort(analysis.breakpoints(trained, goal))
    assert len(at)
    x = np.linspace(*goal.window[:2], 20_001)
    y = trained.network.output(x[:, None])[:, 0]
    bent = x[1:-1][np.abs(np.diff(y, 2)) > 1e-9]
    assert all(np.abs(at - place).min() < 2 * (x[1] - x[0]) for place in bent)


def test_the_second_derivatives_are_the_functions():
    x = np.array([0.2, 0.5, 0.9])
    step = 1e-4
    for name, f in (("sine", np.sin), ("sine of 1/x", lambda x: np.sin(1 / x))):
        numeric = (f(x + step) - 2 * f(x) + f(x - step)) / step**2
        np.testing.assert_allclose(analysis.CURVES[name](x), np.abs(numeric), rtol=1e-3)


def test_shares_are_counted_over_seeds():
    found = analysis.closed((2,), 3)
    assert found["seeds"] == 3
    assert found["closed"] == 0
    assert found["on"] == "the whole plane"
    three = analysis.interval([1.0, 2.0, 3.0])
    assert three["mean"] == 2
    assert three["low"] < 1
    assert three["high"] > 3


def by_hand(network, x):
    """Return pre-activations and output by plain products."""
    pre, value = [], np.asarray(x, float)
    for weight, bias in zip(network.weights, network.biases, strict=True):
        pre.append(value @ np.asarray(weight).T + np.asarray(bias))
        value = pre[-1] * (pre[-1] > 0)
    return pre, value @ np.asarray(network.out[0]).T + np.asarray(network.out[1])


def cells(network, window):
    """Count the pieces that straight lines cut a window into: 1, one a line, one a crossing of two inside."""
    (weight,), (bias,) = network.weights, network.biases
    x0, x1, y0, y1 = window
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    heights = corners @ np.asarray(weight).T + bias
    cut = np.flatnonzero((heights > 0).any(0) & (heights < 0).any(0))
    inside = 0
    for i, j in combinations(cut.tolist(), 2):
        x, y = np.linalg.solve(weight[[i, j]], -bias[[i, j]])
        inside += x0 < x < x1 and y0 < y < y1
    return 1 + len(cut) + inside


@pytest.fixture
def short(monkeypatch):
    """Train all toys for a few steps; what was trained, in order."""
    plain, trained = toys.fit, []

    def fit(goal, hidden, seeds=(0,), steps=0):
        assert steps
        found = plain(goal, hidden, seeds, steps=60)
        trained.append((goal, tuple(hidden), found))
        return found

    monkeypatch.setattr(toys, "fit", fit)
    return trained


def test_the_two_bits_are_those_of_plain_arithmetic(monkeypatch):
    plain, kept = toys.fit, []
    monkeypatch.setattr(toys, "fit", lambda *a, **k: kept.extend(plain(*a, **k)) or kept)
    found = analysis.bits(8)
    half = 1 / np.sqrt(8)  # of a strip between x + y = 0 and x + y = 1
    assert found["margins of the four codes"] == {"00": 1, "01": -round(half, 4), "10": round(half, 4), "11": 1}
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    learned = [t for t in kept if ((by_hand(t.network, corners)[1][:, 0] > 0) == [False, True, True, False]).all()]
    assert found["seeds"] == len(kept) == 8
    assert 0 < found["learned by two neurons"] == len(learned) < 8
    three = sum(cells(t.network, (0, 1, 0, 1)) == 3 for t in learned)
    assert found["of them with three regions in the unit square"] == three > 0


@pytest.mark.parametrize("name", ["sine", "sine of 1/x"])
def test_a_line_is_what_a_fine_grid_shows(name, short):
    found = analysis.on_a_line(name, 3)
    ((goal, hidden, trained),) = short
    assert hidden == (32, 32)
    x0, x1 = goal.window[:2]
    x = np.linspace(x0, x1, 200_001)
    edges = np.linspace(x0, x1, 21)
    middle = np.linspace(x0, x1, 20_000)
    second = np.gradient(np.gradient(np.sin(middle) if name == "sine" else np.sin(1 / middle), middle), middle)
    bend = [np.abs(second[(middle >= a) & (middle < b)]).mean() for a, b in pairwise(edges)]
    counts, spread, ranks, scores = [], [], [], []
    for one in trained:
        on = np.concatenate(by_hand(one.network, x[:, None])[0], axis=1) > 0
        flips = (on[1:] != on[:-1]).sum(1)
        at = np.repeat((x[1:] + x[:-1]) / 2, flips)
        random = np.sort(np.random.default_rng(one.seed).uniform(x0, x1, len(at)))
        counts.append(len(at))
        spread.append(variation(np.diff(at)) - variation(np.diff(random)))
        dense = [((at >= a) & (at < b)).sum() for a, b in pairwise(edges)]
        ranks.append(np.corrcoef(rankdata(dense), rankdata(bend))[0, 1])
        left = goal.y - by_hand(one.network, goal.x)[1][:, 0]
        scores.append(1 - (left**2).sum() / ((goal.y - goal.y.mean()) ** 2).sum())
    assert found["seeds"] == 3
    assert found["breakpoints"]["mean"] == pytest.approx(np.mean(counts), abs=1e-3)
    assert found["R2"]["mean"] == pytest.approx(np.mean(scores), abs=1e-3)
    assert found["spacing: coefficient of variation less random points'"]["mean"] == pytest.approx(
        np.mean(spread), abs=0.01
    )
    assert found["density against |f''|: rank correlation"]["mean"] == pytest.approx(np.mean(ranks), abs=0.05)


def variation(gaps):
    return gaps.std() / gaps.mean()


def test_the_table_has_every_network_with_its_seeds(short):
    found = analysis.numbers(3)
    trained = {(goal.name, hidden): each for goal, hidden, each in short}
    for neurons in (2, 20, 100):
        row = found[f"XOR, {neurons} neurons"]
        each = trained["xor", (neurons,)]
        assert row["regions"]["mean"] == pytest.approx(
            np.mean([cells(t.network, (-1, 1, -1, 1)) for t in each]), abs=1e-3
        )
        goal = toys.task("xor", 400)
        right = [((by_hand(t.network, goal.x)[1][:, 0] > 0) == (goal.y > 0)).mean() for t in each]
        assert row["accuracy"]["mean"] == pytest.approx(np.mean(right), abs=1e-3)
        assert len(each) == 5
    assert len(trained["annuli", (16, 16)]) == 3
    assert found["circle, 2"]["closed"] == 0
    for neurons in (2, 3, 4):
        row = found[f"circle, {neurons}"]
        assert (row["seeds"], row["on"]) == (3, "the whole plane")
        assert row["closed"] == sum(enclosed(t.network) for t in trained["circle", (neurons,)])
    assert found["circle, 8 x 8 x 8"]["on"] == "a window of side 6"
    assert found["annuli, 16 x 16"]["regions"]["mean"] > 1
    assert found["regions of a ReLU on each of d coordinates"] == {str(d): 2**d for d in (1, 2, 3, 8, 12, 16)}
    assert {"XOR of bits", *analysis.CURVES} <= set(found)


def enclosed(network):
    """Return whether the output is positive at the middle and negative on a far circle and on every way there."""
    side = 201
    x = np.linspace(-60, 60, side * 6 + 1)
    points = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    positive = (by_hand(network, points)[1][:, 0] > 0).reshape(len(x), len(x))
    pieces, _ = label(positive)
    middle = pieces[len(x) // 2, len(x) // 2]
    rim = {*pieces[0], *pieces[-1], *pieces[:, 0], *pieces[:, -1]}
    return bool(middle) and middle not in rim


def test_the_pages_say_what_the_kept_run_found():
    root = Path(analysis.__file__).parents[1]
    kept = json.loads((root / "analyses" / "results" / "toys.json").read_text())
    two, three = kept["circle, 2"], kept["circle, 3"]
    assert (two["seeds"], two["closed"], three["seeds"]) == (50, 0, 50)
    assert two["on"] == three["on"] == "the whole plane"
    findings, page = ((root / "docs" / f"{name}.md").read_text() for name in ("findings", "toys"))
    assert f"closed in **0 of {two['seeds']}**, on the whole plane" in findings
    assert f"closed in {three['closed']} of {three['seeds']} |" in findings
    for count in (f"0 of {two['seeds']}", f"{three['closed']} of {three['seeds']}"):
        assert count in page


PICTURES = Path(analysis.__file__).parents[1] / "docs" / "pictures"
PLANES = ("toy-xor-built", "toy-circle-built", "toy-xor-trained", "toy-annuli")


@pytest.fixture(scope="module")
def panels():
    return analysis.panels()


def test_the_panels_are_of_the_networks_that_they_name(panels):
    assert tuple(panels) == PLANES
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    for panel in panels["toy-xor-built"]:
        np.testing.assert_allclose(by_hand(panel.network, corners)[1][:, 0] + 0.5, [0, 1, 1, 0], atol=1e-12)
    above, sheet = panels["toy-xor-built"]
    assert above.turn is None
    assert sheet.turn is not None
    for x, y, word in above.marks:
        first, second = by_hand(above.network, [[x, y]])[0][0][0] > 0
        assert word == f"code {first:d}{second:d}"
    assert {word for *_, word in above.marks} == {"code 00", "code 10", "code 11"}
    (circle, _), found = panels["toy-circle-built"], toys.pieces(toys.exact_circle())
    assert "six regions" in circle.caption
    assert len(toys.regions(circle.network, circle.goal.window)) == 6
    assert found.closed.tolist() == [True]
    angle = np.deg2rad(np.arange(30, 390, 60))  # a hexagon: .6 from the middle to its sides
    for radius, sign in ((0.599, 1), (0.601, -1)):
        at = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        assert (np.sign(by_hand(circle.network, at)[1]) == sign).all()
    assert (np.sign(by_hand(circle.network, circle.goal.x)[1][:, 0]) == circle.goal.y).all()


def test_the_panels_captions_are_counted(panels):
    few, many = panels["toy-xor-trained"]
    for neurons, panel in ((20, few), (100, many)):
        assert [len(bias) for bias in panel.network.biases] == [neurons]
        count = cells(panel.network, panel.goal.window)
        right = (np.sign(by_hand(panel.network, panel.goal.x)[1][:, 0]) == panel.goal.y).mean()
        assert panel.caption == f"{neurons} neurons: {count:,} regions, accuracy {right:.1%}"
        found = toys.regions(panel.network, panel.goal.window)
        near = np.hypot(*found.centres.T) < 0.1  # what the page says of slivers
        assert near.mean() > 0.5
        assert found.areas[near].sum() < 0.01 * 4
    rings = panels["toy-annuli"][0]
    assert [len(bias) for bias in rings.network.biases] == [16, 16]
    right = (np.sign(by_hand(rings.network, rings.goal.x)[1][:, 0]) == rings.goal.y).mean()
    assert rings.caption.startswith("16 x 16 neurons: ")
    assert rings.caption.endswith(f"accuracy {right:.1%}")


@pytest.mark.parametrize("name", PLANES)
def test_a_kept_picture_is_of_its_networks(name, panels):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra docs)")
    assert (PICTURES / f"{name}.png").stat().st_size < 150_000
    assert f"](pictures/{name}.png)" in (PICTURES.parent / "toys.md").read_text("utf-8")
    with image.open(PICTURES / f"{name}.png") as kept:
        pixels = np.asarray(kept.convert("RGB")).astype(int)
    assert pixels.shape == (26 + 370 + 10, 2 * 380 + 10, 3)
    for place, panel in enumerate(panels[name]):
        part = pixels[26:396, 10 + 380 * place : 380 + 380 * place]
        warm = part[..., 0] - part[..., 2]
        if panel.turn is not None:  # a sheet of both colours
            assert (warm > 20).sum() > 500
            assert (warm < -20).sum() > 500
            continue
        x0, x1, y0, y1 = panel.goal.window
        share = (np.arange(370) + 0.5) / 370
        x, y = np.meshgrid(x0 + share * (x1 - x0), y1 - share * (y1 - y0))
        says = by_hand(panel.network, np.stack([x, y], axis=-1).reshape(-1, 2))[1][:, 0].reshape(370, 370)
        told = (np.abs(warm) > 20) & (part.max(axis=2) > 150)  # no line, no dot
        assert told.mean() > 0.6
        assert ((warm < 0) == (says > 0))[told].mean() > 0.98


def test_the_lines_are_of_their_networks(monkeypatch):
    plain, kept = toys.fit, []
    monkeypatch.setattr(toys, "fit", lambda *a, **k: kept.append((a[0], plain(*a, **k))) or kept[-1][1])
    figure = analysis.lines()
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra docs)")
    with image.open(PICTURES / "toy-lines.png") as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    assert (PICTURES / "toy-lines.png").stat().st_size < 150_000
    assert "](pictures/toy-lines.png)" in (PICTURES.parent / "toys.md").read_text("utf-8")
    assert [goal.name for goal, _ in kept] == ["sine", "sine of 1/x"]
    for row, (_, (one,)) in enumerate(kept):
        target, broken = figure.data[2 * row : 2 * row + 2]
        f = np.sin if row == 0 else lambda x: np.sin(1 / x)
        np.testing.assert_allclose(target.y, f(np.array(target.x)), atol=1e-12)
        x, y = np.array(broken.x), np.array(broken.y)
        np.testing.assert_allclose(y, by_hand(one.network, x[:, None])[1][:, 0], atol=1e-9)
        middles = (x[1:] + x[:-1]) / 2  # nothing bends between
        np.testing.assert_allclose(by_hand(one.network, middles[:, None])[1][:, 0], (y[1:] + y[:-1]) / 2, atol=1e-9)
        codes = np.concatenate(by_hand(one.network, middles[:, None])[0], axis=1) > 0
        assert (codes[1:] != codes[:-1]).any(axis=1).all()  # and every mark is a bend
        title = figure.layout.annotations[row].text
        assert title.endswith(f": {len(x) - 2} breakpoints, R² {one.accuracy:.4f}")
        if row == 1:  # what the page says of the left
            assert (x[1:-1] < 0.3).mean() > 0.5
        photographed(pixels, figure, row, x[1:-1], y[1:-1])


def photographed(pixels, figure, row, x, y):
    """Check that a photograph of a figure, 8 pixels from the corner, has an orange mark at each place."""
    orange = np.pad((pixels[..., 0] - pixels[..., 2]) > 80, 3)
    layout, margin, number = figure.layout, figure.layout.margin, row + 1 if row else ""
    across, up = layout[f"xaxis{number}"], layout[f"yaxis{number}"]
    wide, tall = layout.width - margin.l - margin.r, layout.height - margin.t - margin.b
    right = (x - across.range[0]) / (across.range[1] - across.range[0])
    high = up.domain[0] + (y - up.range[0]) / (up.range[1] - up.range[0]) * (up.domain[1] - up.domain[0])
    places = np.stack([8 + margin.t + (1 - high) * tall, 8 + margin.l + right * wide], axis=1).astype(int)
    assert all(orange[i : i + 7, j : j + 7].sum() >= 10 for i, j in places)
