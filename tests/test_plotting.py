"""The drawings: every number where it was given, names without markup, shapes beside hues."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from polytope_lm import plotting
from polytope_lm.statistics.estimate import Estimate

NAME = "<b>mine</b>\u202e"
SAFE = r"&lt;b&gt;mine&lt;/b&gt;\u202e"


def test_dots_stand_at_their_numbers_apart_in_their_rows():
    found = [Estimate(0.1, 0.01, 0.05, 0.2), None, Estimate(-0.3, 0.01, -0.4, -0.1)]
    other = [Estimate(0.5, 0.01, 0.4, 0.6)] * 3
    series = [plotting.Marks(NAME, found, 0), plotting.Marks("other", other, 2, open=True)]
    figure = plotting.dots([3, 7, 9], {"lead": series, "again": series}, line=0, band=(-0.01, 0.01))
    first, second = figure.data[:2]
    assert [trace.xaxis for trace in figure.data] == ["x", "x", "x2", "x2"]
    assert first.name == SAFE
    np.testing.assert_allclose(first.x, [0.1, -0.3])
    np.testing.assert_allclose(first.error_x.array, [0.1, 0.2])
    np.testing.assert_allclose(first.error_x.arrayminus, [0.05, 0.1])
    np.testing.assert_allclose(second.y[1], 1)  # alone in its row
    assert first.y[0] < 0 < second.y[0]
    assert max(np.abs([*first.y, *second.y] - np.array([0, 2, 0, 1, 2]))) < 0.5
    assert first.marker.symbol != second.marker.symbol
    assert second.marker.symbol.endswith("-open")
    assert list(figure.layout.yaxis.ticktext) == ["layer 3", "layer 7", "layer 9"]
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(-0.01, 0.01), (0, 0)] * 2


def test_series_differ_in_shape_as_well_as_in_hue():
    assert len(set(plotting.SYMBOLS)) == len(set(plotting.COLOURS)) == len(plotting.SYMBOLS)


def change(top, js=(0.1, 0.2, 0.3)):
    t = np.linspace(0, 1, len(top))
    return SimpleNamespace(t=t, js=np.array(js), top=top, top_probability=np.array([0.4, 0.9, 0.3, 0.2]))


def test_stretches_join_places_with_one_token():
    runs = plotting.stretches(change(("a", "b", "b", "a")))
    assert [(run.token, run.most) for run in runs] == [("a", 0.4), ("b", 0.9), ("a", 0.2)]
    assert (runs[1].start, runs[1].end) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_strips_have_a_tick_for_each_crossing_up_where_a_neuron_turns_on():
    crossings = (np.array([0.2, 0.7, 0.4]), np.array([1, 1, 4]), np.array([10, 11, 12]), np.array([True, False, True]))
    figure = plotting.strips([1, 4], crossings, change(("<i>", "b", "b", "b")), title=NAME)
    off, on = figure.data[-2:]
    assert (off.name, on.name) == ("off", "on")
    assert list(on.x) == [0.2, 0.2, 0.2, None, 0.4, 0.4, 0.4, None]
    assert list(off.x) == [0.7, 0.7, 0.7, None, None]
    assert [round(on.y[0]), round(on.y[4])] == [0, 1]
    assert on.y[1] < on.y[0] < 0 < off.y[0] < off.y[1]  # rows count downwards: up is less
    assert on.text[4] == "layer 4, neuron 12 turns on at t = 0.4000"
    bar = next(trace for trace in figure.data if trace.type == "bar")
    assert list(bar.text) == ["'&lt;i&gt;'", "'b'"]
    np.testing.assert_allclose([bar.base[1], bar.x[0]], 1 / 6)
    np.testing.assert_allclose(figure.data[0].y, [0.1, 0.2, 0.3, 0.3])
    assert figure.layout.title.text == SAFE


def test_strips_of_one_layer_and_without_an_output():
    nothing = (np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))
    figure = plotting.strips([2], nothing, None)
    assert len(figure.data) == 2
    assert list(figure.layout.yaxis.ticktext) == ["turns on", "turns off"]


def test_areas_write_the_name_inside_its_own_area():
    grid = np.stack([np.linspace(0, 1, 5)] * 2, axis=1)
    names = [["x" if 0 < i < 4 and 0 < j < 4 else NAME for i in range(5)] for j in range(5)]
    figure = plotting.areas(grid, names, np.zeros((1, 2, 2)), {"A: here": (0.5, 0.5)}, (0, 1, 0, 1), NAME)
    heat = figure.data[0]
    for note in figure.layout.annotations:
        row, column = round(note.y * 4), round(note.x * 4)
        assert heat.text[row][column] == note.text
    assert {note.text for note in figure.layout.annotations} == {"'x'", f"'{SAFE}'"}


def test_clouds_and_ridges_and_choices_keep_names_inert():
    cloud = plotting.Cloud(NAME, [1.0], [2.0], ["hover"])
    figures = (
        plotting.clouds([cloud], NAME, NAME, y=NAME, rows=[NAME]),
        plotting.ridges([NAME], [[1, 2, 0]], NAME, "neurons"),
        plotting.choices([plotting.Lead(0.1, NAME, "hover", [0])], [NAME], NAME, NAME),
    )
    for figure in figures:
        text = figure.to_json()
        assert "\\u003cb\\u003e" not in text
        assert "<b>" not in text
        assert "\u202e" not in text


def test_histories_have_a_panel_each_on_a_logarithmic_axis_with_step_0_at_a_half():
    lines = {
        "one <b>": [plotting.Curve("a", [0, 1, 4], [1.0, 2.0, 3.0]), plotting.Curve("b", [4], [5.0])],
        "two": [plotting.Curve("c", [2], [7.0])],
    }
    figure = plotting.histories(lines, x="updates")
    assert [(list(line.x), list(line.y), line.xaxis) for line in figure.data] == [
        ([0.5, 1, 4], [1.0, 2.0, 3.0], "x"),
        ([4], [5.0], "x"),
        ([2], [7.0], "x2"),
    ]
    assert (figure.layout.xaxis.type, figure.layout.xaxis2.type) == ("log", "log")
    texts = [note.text for note in figure.layout.annotations]
    assert "two" in texts
    assert not any("<b>" in text for text in texts)


def test_one_history_alone_has_a_legend_and_intervals():
    line = plotting.Curve("a", [1, 10], [0.5, 0.75], low=[0.25, 0.5], high=[0.625, 1.0])
    figure = plotting.histories({"over <b>": [line]}, x="k", span=(-1, 1))
    (drawn,) = figure.data
    assert drawn.showlegend
    assert drawn.error_y.array == (0.125, 0.25)
    assert drawn.error_y.arrayminus == (0.25, 0.25)
    assert figure.layout.yaxis.range == (-1, 1)
    assert figure.layout.title.text.startswith("over")
    assert "<b>" not in figure.layout.title.text
