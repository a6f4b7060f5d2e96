"""Notebooks as they are shipped: a question, an answer, what to change for GPT-2, and a picture where sliders were."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from analyses.executed_notebooks import PLOTLY, SIX, WIDGET, controls, pictures

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG"


def states():
    """A notebook's widgets: a choice, a slider and what they draw, in a box."""
    figure = {"data": [{"x": [0, 1], "y": [0, 1], "type": "scatter"}], "layout": {}}
    ends = {"min": 0.0, "max": 6.0, "step": 0.1}
    return {
        "box": {"state": {"children": [f"IPY_MODEL_{name}" for name in ("choice", "slider", "output")]}},
        "choice": {"state": {"description": "neuron", "index": 1, "_options_labels": ["0", "1 <b>"]}},
        "slider": {"state": {"description": "weight", "value": 4.5, **ends}},
        "output": {"state": {"outputs": [{"data": {PLOTLY: figure}}]}},
    }


def test_controls_are_drawn_as_they_stand():
    html, figure = controls("box", states())
    assert figure["data"][0]["y"] == [0, 1]
    assert html.index("neuron") < html.index("weight")
    assert 'min="0.0" max="6.0" step="0.1" value="4.5"' in html
    assert "1 &lt;b&gt;" in html


def test_sliders_become_a_picture(browser):
    data = {WIDGET: {"model_id": "box"}, "text/plain": "interactive(...)"}
    pictures([data, other := {"text/plain": "3"}], states(), browser.new_page())
    assert set(data) == {"image/png", "text/plain"}
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    assert other == {"text/plain": "3"}


@pytest.mark.parametrize("name", SIX)
def test_a_notebook_asks_answers_and_says_what_to_change(name):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    first, last = cells[0].source, cells[-1].source
    assert first.startswith("# ")
    assert "?" in first.splitlines()[0]
    assert "What was found" in last or "The answer" in last
    assert 'plm.load("gpt2")' in last


@pytest.mark.parametrize("name", SIX)
def test_a_page_that_runs_nothing_shows_every_figure(name):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    shown = [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]
    assert all("image/png" in data for data in shown if PLOTLY in data)
    assert not any(WIDGET in data for data in shown)
    if name == "polytopes":
        (sliders,) = [data for data in shown if data["text/plain"].startswith("sliders")]
        assert base64.b64decode(sliders["image/png"]).startswith(PNG)
