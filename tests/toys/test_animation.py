"""The film of a training: its frames are the exact pictures, in the page as in Python."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_the_gif_has_the_frames(tmp_path, film):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra docs)")
    with image.open(film.save_gif(tmp_path / "film.gif", side=80, every=2)) as gif:
        assert gif.n_frames == 4
        assert gif.size == (80, 80)
        gif.seek(3)
        pixels = np.asarray(gif.convert("RGB")).reshape(-1, 3).astype(int)
    assert (pixels[:, 2] - pixels[:, 0]).max() > 50  # somewhere blue
    assert (pixels[:, 0] - pixels[:, 2]).max() > 50  # somewhere orange


def test_what_cannot_be_filmed_is_refused(tmp_path, film):
    with pytest.raises(PolytopeError, match="sine has 1 inputs"):
        toys.record(toys.task("sine", 20), (3,))
    with pytest.raises(PolytopeError, match="frames=30"):
        toys.record(film.goal, (3,), frames=30, steps=10)
    with pytest.raises(PolytopeError, match="side=0"):
        film.save_gif(tmp_path / "a.gif", side=0)
