"""The record of a path's crossings: counts, strips, tables, files; prompts shown as text."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.paths.crossings import Crossings, LayerMethod, OutputChange

NASTY = "<script>alert(1)</script> \x00\u202e<b>"


def site(layer):
    return Site(layer, "pre", f"blocks.{layer}.mlp.hook_pre", 8, 4, Premises("smooth", "gelu", True, "LayerNorm"))


def crossings(
    rows=((0.1, 1, 3, True), (0.5, 1, 3, False), (1.0, 1, 0, True), (0.25, 2, 7, False)), *, change=True, prompt="a b"
):
    t, layer, neuron, on = zip(*rows, strict=True) if rows else ((),) * 4
    output = OutputChange(np.linspace(0, 1, 3), np.array([0.1, 0.2]), ("x", NASTY, "z"), np.array([0.5, 0.6, 0.7]))
    return Crossings(
        prompts=(prompt, "c d"), tokens=(" b", " d"), site=site(1), at="resid_mid", space="resid_mid",
        scope="stream", shape="line", length=2.5, t=np.array(t, float), layer=np.array(layer, np.int16),
        neuron=np.array(neuron, np.int32), on=np.array(on, bool),
        layers=(LayerMethod(site(1), "closed form", 0, 1), LayerMethod(site(2), "grid of 33 steps", None, 1)),
        output_change=output if change else None, provenance={"model": "m"},
    )  # fmt: skip


def test_counts_and_returns():
    found = crossings()
    assert (found.counts(), found.counts(1), found.counts(2), len(found)) == (4, 3, 1, 4)
    assert found.returns.tolist() == [True, True, False, False]
    assert found.missed_estimate is None
    with pytest.raises(PolytopeError, match=r"layer 0 was not searched.*1, 2"):
        found.counts(0)


def test_one_neurons_crossings_in_two_layers_are_not_a_return():
    assert not crossings(((0.1, 1, 3, True), (0.2, 2, 3, True))).returns.any()


def test_flips_back_are_kept_apart_from_what_the_ends_tell():
    rows = [(t, 1, 3, t != 0.2) for t in (0.1, 0.2, 0.3)] + [(0.1, 1, 4, True), (0.4, 2, 3, True), (0.5, 2, 3, False)]
    found = crossings(rows)
    assert (found.flip_backs(1), found.flip_backs(2), found.flip_backs()) == (2, 2, 4)
    assert crossings(()).flip_backs() == 0
    apart = replace(found, position=np.array([0, 1, 2, 0, 5, 5], np.int32))
    assert apart.flip_backs() == 2  # a neuron at another token is another one
    assert apart.returns.tolist() == [False] * 4 + [True] * 2
    again = Crossings.from_dict(json.loads(json.dumps(apart.to_dict())))
    np.testing.assert_array_equal(again.position, apart.position)
    assert apart.to_frame()["position"].tolist() == [0, 1, 2, 0, 5, 5]


def test_files_written_before_there_were_contexts_are_read():
    data = crossings().to_dict()
    del data["context"], data["position"]
    again = Crossings.from_dict(data)
    assert (again.context, again.position) == ("a", None)


@given(st.integers(1, 200))
def test_a_histogram_holds_every_crossing(bins):
    found = crossings()
    assert found.histogram(bins).shape == (2, bins)
    assert found.histogram(bins).sum(axis=1).tolist() == [3, 1]


def test_a_strip_shows_the_lone_crossing():
    strip = crossings().strip(10)
    assert strip == " █   █   █"
    many = crossings((*((0.05, 1, n, True) for n in range(100)), (0.95, 1, 7, True))).strip(10)
    assert many == "█        ▁"
    assert crossings(()).strip(4) == "    "
    assert crossings().strip(4, layer=2) == " █  "


def test_to_frame():
    frame = crossings().to_frame()
    assert list(frame.columns) == ["t", "layer", "neuron", "on", "returns"]
    assert frame.loc[3].tolist() == [0.25, 2, 7, False, False]
    assert isinstance(frame, pd.DataFrame)


@pytest.mark.parametrize("rows", [(), ((0.1, 1, 3, True),)])
@pytest.mark.parametrize("change", [True, False])
def test_json_round_trip(rows, change, tmp_path):
    found = crossings(rows, change=change, prompt=NASTY)
    assert Crossings.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()
    again = Crossings.load(found.save(tmp_path / "c.json"))
    assert again.to_dict() == found.to_dict()
    assert again.prompts == (NASTY, "c d")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"prompts": 3}'])
def test_a_foreign_file_is_one_clear_line(content, tmp_path):
    file = tmp_path / "c.json"
    file.write_text(content)
    with pytest.raises(PolytopeError, match=r"c\.json") as error:
        Crossings.load(file)
    assert "\n" not in str(error.value)
    with pytest.raises(PolytopeError, match=r"none\.json"):
        Crossings.load(tmp_path / "none.json")


def test_prompts_and_tokens_are_shown_as_text():
    found = crossings(prompt=NASTY)
    for shown in (found._repr_html_(), json.dumps(found.plot().to_plotly_json(), default=str)):
        assert "<script" not in shown
        assert "<b>" not in shown
        assert "\x00" not in shown
        assert "\u202e" not in shown
    assert "&lt;script&gt;" in found._repr_html_()


@pytest.mark.parametrize("change", [True, False])
def test_plot_draws_a_strip_a_layer_under_the_outputs_change(change):
    figure = crossings(change=change).plot()
    assert list(figure.layout.yaxis.ticktext) == ["layer 1", "layer 2"]
    off, on = figure.data[-2:]
    assert sum(x is not None for x in (*off.x, *on.x)) == 3 * 4
    assert len([trace for trace in figure.data if trace.type == "bar"]) == change
    if change:
        np.testing.assert_allclose(figure.data[0].y, [0.1, 0.2, 0.2])


def test_plot_writes_the_next_token_below_where_it_is_the_likeliest():
    t = np.linspace(0, 1, 5)
    turning = OutputChange(t, np.full(4, 0.1), ("<i>", "<i>", "b", "b", "c"), np.array([0.2, 0.4, 0.9, 0.5, 0.3]))
    figure = replace(crossings(), output_change=turning).plot()
    below = next(trace for trace in figure.data if trace.type == "bar")
    assert list(below.text) == ["'&lt;i&gt;'", "'b'", "'c'"]
    np.testing.assert_allclose(below.x, [0.375, 0.5, 0.125])
    np.testing.assert_allclose(below.base, [0, 0.375, 0.875])
    np.testing.assert_allclose([most for *_, most in below.customdata], [0.4, 0.9, 0.3])


def test_words_name_the_method():
    assert "layer   2      1 crossings" in str(crossings())
    assert "grid of 33 steps; missed, estimate: unknown" in str(crossings())
    assert "<td>unknown</td>" in crossings()._repr_html_()


def test_what_was_found_is_shown_in_a_line():
    found = crossings(prompt="long " * 800 + NASTY)
    assert repr(found) == (
        f"Crossings: '{('long ' * 8)[:39]}…' -> 'c d'; line in resid_mid of layer 1; 4 in layers 1 to 2, "
        "missed, estimate: unknown"
    )
    assert (
        repr(found.output_change) == "OutputChange: 2 steps, at most 0.200, sum 0.300; likeliest next token 'x' -> 'z'"
    )
    assert "\x00" not in repr(crossings(prompt=NASTY))


def test_the_former_name_of_the_estimate_is_read():
    found = crossings()
    data = found.to_dict()
    for part in data["layers"]:
        part["missed_at_most"] = part.pop("missed_estimate")
    data["layers"][1]["missed_at_most"] = 3
    old = Crossings.from_dict(data)
    assert [part.missed_estimate for part in old.layers] == [0, 3]
    assert old.missed_at_most == old.missed_estimate == 3
    assert old.layers[1].missed_at_most == 3
