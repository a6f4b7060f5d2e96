"""The film of a training: its frames are the exact pictures, in the page as in Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from polytope_lm import toys
from polytope_lm.errors import PolytopeError


@pytest.fixture(scope="module")
def film():
    return toys.record(toys.task("circle", 120), (8, 8, 8), frames=6, steps=60, seed=2)


def test_frames_are_networks_on_the_way(film):
    assert film.steps == (0, 12, 24, 36, 48, 60)
    (trained,) = toys.fit(film.goal, (8, 8, 8), [2], steps=60)
    np.testing.assert_allclose(film.networks[-1].weights[1], trained.network.weights[1], atol=1e-12)
    assert film.accuracy[-1] == trained.accuracy
    assert not np.allclose(film.networks[0].weights[1], film.networks[1].weights[1])


@pytest.mark.browser
def test_the_pages_last_frame_is_the_exact_picture(tmp_path, opened, film):
    page, trouble, requests = opened(film.save_html(tmp_path / "film.html"))
    exact = toys.regions(film.trained.network, film.goal.window)
    assert page.evaluate("film.at") == len(film) - 1
    shown = page.evaluate(
        "(() => { const f = film.frame(film.frames - 1); return {x: [...f.x], y: [...f.y], z: [...f.z],"
        " faces: f.faces.map((one) => one.ids), slopes: f.faces.map((one) => one.slope)}; })()"
    )
    x0, x1, *_ = film.goal.window
    np.testing.assert_allclose(np.stack([shown["x"], shown["y"]], axis=1), exact.vertices, atol=(x1 - x0) / 65535)
    assert shown["faces"] == [list(face) for face in exact.faces]
    heights, slopes = exact.values[:, 0], exact.maps.matrix[:, 0]
    np.testing.assert_allclose(shown["z"], heights, atol=2e-4 * max(1, np.abs(heights).max()))
    np.testing.assert_allclose(shown["slopes"], slopes, atol=1e-3 * max(1, np.abs(slopes).max()))
    assert f"{len(exact)} regions" in page.inner_text("#told")
    # What is painted in the middle of a region is that region's colour.
    values = np.array([heights[list(face)].mean() for face in exact.faces])
    largest = int(np.argmax(np.where(exact.on_border, 0, exact.areas)))
    place = (exact.centres[largest] - x0) / (x1 - x0) * 520
    red, _, blue, _ = page.evaluate(
        "([x, y]) => [...document.getElementById('regions').getContext('2d').getImageData(x, y, 1, 1).data]",
        [int(place[0]), int(520 - place[1])],
    )
    assert (blue > red) == (values[largest] > 0)
    assert trouble == []
    assert len(requests) == 1


@pytest.mark.browser
def test_the_page_plays_from_its_start_to_its_end(tmp_path, opened, film):
    page, trouble, _ = opened(film.save_html(tmp_path / "film.html"))
    first = page.evaluate("film.show(0); document.getElementById('regions').toDataURL()")
    page.click("#play")
    page.evaluate(
        "() => new Promise((done) => { const look = () => film.playing ? setTimeout(look, 20) : done(); look(); })"
    )
    assert page.evaluate("film.at") == len(film) - 1
    assert page.evaluate("document.getElementById('regions').toDataURL()") != first
    page.focus("#frame")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("film.at") == len(film) - 2
    assert trouble == []


@pytest.fixture(scope="module")
def shown(film, tmp_path_factory):
    """Every frame of the GIF as pixels, cut into its four panels: regions, sheet, dual points, accuracy."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra docs)")
    path = film.save_gif(tmp_path_factory.mktemp("gif") / "film.gif", side=480, every=1)
    assert path.stat().st_size / len(film) * 300 < 8e6
    frames = []
    with image.open(path) as gif:
        assert gif.size == (480, 480)
        for number in range(gif.n_frames):
            gif.seek(number)
            pixels = np.asarray(gif.convert("RGB")).astype(int)
            frames.append([pixels[y : y + 214, x : x + 214] for y in (25, 265) for x in (10, 250)])
    return frames


def blue(pixels):
    return pixels[..., 2] - pixels[..., 0] > 50


def orange(pixels):
    return pixels[..., 0] - pixels[..., 2] > 50


def test_the_gif_shows_each_frames_regions_and_sheet(shown, film):
    assert len(shown) == len(film)
    for number, (flat, sheet, *_) in enumerate(shown):
        found = film.frame(number)
        means = np.array([found.values[list(face), 0].mean() for face in found.faces])
        # Where a region is wide enough that no line is painted at its middle.
        clear = (found.areas > 0.03) & (np.abs(means) > 0.4)
        x, y = ((found.centres[clear] + 1.2) / 2.4 * 214).astype(int).T
        middles = flat[213 - y, x]
        assert clear.sum() >= 5
        assert (blue(middles) == (means[clear] > 0)).mean() > 0.9
        assert (orange(middles) == (means[clear] < 0)).mean() > 0.9
        painted = (sheet < 250).any(axis=2)
        assert 0.1 < painted.mean() < 0.7  # a sheet leaves room above and below
        assert painted[:, 60:150].any(axis=0).all()
        assert orange(sheet).any() == orange(flat).any()
        assert blue(sheet).any() == blue(flat).any()


def test_the_gif_shows_each_frames_dual_points(shown, film):
    for number, panels in enumerate(shown):
        slopes = film.frame(number).maps.matrix[:, 0]
        reach = 1.1 * np.abs(slopes).max()
        places = 107 * (1 + slopes / reach * (1, -1))
        white = (panels[2] > 240).all(axis=2)
        # A point whose region is near 0 is a ring around white.
        assert maximum_filter(~white, 5)[tuple(places.astype(int).T[::-1])].all()
        y, x = np.indices(white.shape)
        near = np.hypot(x[..., None] - places[:, 0], y[..., None] - places[:, 1]).min(axis=2)
        off_axes = (np.abs(x - 107) > 2) & (np.abs(y - 107) > 2)
        assert white[(near > 214 * 0.12) & off_axes].all()


def test_the_gif_shows_the_accuracy_up_to_each_frame(shown, film):
    ends = []
    for _, _, _, curve in shown:
        y, x = np.nonzero(blue(curve))
        last = x.max() - 3  # the dot's middle
        ends.append((last, y[np.abs(x - last) <= 1].mean()))
    across, up = np.array(ends).T
    steps, scores = np.array(film.steps), np.array(film.accuracy)
    assert np.ptp(scores) > 0.2
    np.testing.assert_allclose(np.diff(across) / np.ptp(across), np.diff(steps) / np.ptp(steps), atol=0.02)
    assert np.corrcoef(up, scores)[0, 1] < -0.995


def test_the_gif_has_the_frames_asked_for(tmp_path, film):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra docs)")
    with image.open(film.save_gif(tmp_path / "film.gif", side=120, every=2)) as gif:
        assert gif.n_frames == 4
        assert gif.size == (120, 120)


def test_a_window_without_area_is_refused_before_the_training(film, monkeypatch):
    monkeypatch.setattr("polytope_lm.toys.animation.fit", None)
    with pytest.raises(PolytopeError, match=r"window=\(0, 0, 0, 1\) has no area"):
        toys.record(replace(film.goal, window=(0, 0, 0, 1)), (3,), frames=5, steps=20)


def test_what_cannot_be_filmed_is_refused(tmp_path, film):
    with pytest.raises(PolytopeError, match="sine has 1 inputs"):
        toys.record(toys.task("sine", 20), (3,))
    with pytest.raises(PolytopeError, match="frames=30"):
        toys.record(film.goal, (3,), frames=30, steps=10)
    with pytest.raises(PolytopeError, match="side=119"):
        film.save_gif(tmp_path / "a.gif", side=119)
    with pytest.raises(PolytopeError, match="every=0"):
        film.save_gif(tmp_path / "a.gif", every=0)
