from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.result import AGREEMENT, BEST_COSINE, SIMHASH, ClustersResult, Estimate
from polytope_lm.representations.directions import CENTRED

FAST = {"k": 8, "resamples": 20, "comparators": False, "per_document": None}


@pytest.fixture
def result(world) -> ClustersResult:
    return clusters(world("code", layers=(1, 4), n=500), **FAST)


def test_a_saved_result_comes_back_whole(result, tmp_path) -> None:
    path = result.save(tmp_path / "out")
    assert path == tmp_path / "out" / "result.json"
    back = ClustersResult.load(tmp_path / "out")
    assert back == result
    assert back.timings == result.timings
    assert list(back.tokens.columns) == list(result.tokens.columns)
    for name in result.tokens:
        for mine, theirs in zip(result.tokens[name], back.tokens[name], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_same_seed_gives_the_same_bytes_apart_from_timings(world, tmp_path) -> None:
    texts = []
    for i in range(2):
        found = clusters(world("direction"), 4, seed=3, **FAST)
        path = replace(found, timings={}).save(tmp_path / str(i))
        texts.append((path.read_bytes(), (path.parent / "tokens.parquet").read_bytes()))
    assert texts[0] == texts[1]
    other = clusters(world("direction"), 4, seed=4, **FAST)
    assert replace(other, timings={}).save(tmp_path / "other").read_bytes() != texts[0][0]


def test_no_text_of_the_corpus_is_in_the_numbers(result, tmp_path) -> None:
    text = result.save(tmp_path).read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "é" not in text
    data = json.loads(text)
    assert data["verdict"] == result.verdict
    assert data["layers"][0]["verdict"]["sentence"] == result.verdicts[0].sentence
    assert data["settings"]["k"] == 8
    assert data["versions"]["kmedoids"]
    assert data["command"].startswith("plm.predictions.clusters(codes, ")


def test_the_printed_command_gives_the_result(world, result) -> None:
    import polytope_lm as plm

    again = eval(result.command, {"plm": plm, "codes": world("code", layers=(1, 4), n=500)})  # noqa: S307
    assert again == result


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"prediction": "clusters", "format": 99}'])
def test_what_is_no_result_is_refused(content, tmp_path) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(PolytopeError, match=r"result\.json"):
        ClustersResult.load(tmp_path)


def test_clusters_are_tokens_in_context_largest_first(result, tmp_path) -> None:
    view = result.clusters("code", layer=4)
    assert repr(view) == "8 clusters of 455 tokens by 'code'; [id] shows one, .full(id) has every column"
    sizes = result.layer(4).representation("code").cluster_sizes
    assert [len(view[i]) for i in view] == sorted((n for n in sizes if n), reverse=True)
    one = view[3]
    assert list(one.columns) == ["left", "token", "right", "upos"]
    full = view.full(3)
    assert list(full.columns) == ["left", "token", "right", "upos", "word", "document", "position", "row"]
    assert full["left"].str.len().max() > 20
    assert [len(text) for text in one["left"]] == [min(20, len(text)) for text in full["left"]]
    with pd.option_context("display.width", 80):
        lines = repr(one).splitlines()
    assert lines[0].split() == ["left", "token", "right", "upos"]
    assert max(map(len, lines)) <= 80
    assert (result.tokens.loc[one.index, "L04.pre/cluster/code"] == 3).all()
    with pytest.raises(PolytopeError, match="no cluster 99 by 'code'; ids go from 0 to 7"):
        view[99]
    with pytest.raises(PolytopeError, match="2 layers were compared; say which"):
        result.clusters("code")
    with pytest.raises(PolytopeError, match="no representation 'codes' in this result; there are 'code'"):
        result.clusters("codes", layer=4)
    with pytest.raises(PolytopeError, match="layer 7 is not in this result; layers compared: 1, 4"):
        result.clusters("code", layer=7)
    result.save(tmp_path)
    (tmp_path / "tokens.parquet").unlink()
    with pytest.raises(PolytopeError, match=r"without tokens\.parquet"):
        ClustersResult.load(tmp_path).clusters("code", layer=4)


def test_the_frame_has_a_row_for_each_layer_representation_and_score(result) -> None:
    frame = result.to_frame()
    assert len(frame) == 2 * 5 * 3
    row = frame[(frame["layer"] == 4) & (frame["representation"] == "code") & (frame["score"] == "AMI")].iloc[0]
    found = result.layer(4).difference("code")
    assert (row["over centred cosine"], row["over centred cosine low"]) == (found.estimate.value, found.estimate.low)
    assert row["verdict"] == result.layer(4).verdict.outcome
    assert pd.isna(frame[frame["representation"] == "cosine of h, raw"]["over raw cosine"]).all()


def test_the_figure_has_a_dot_and_interval_for_each_layer_and_mark(result) -> None:
    figure = result.plot()
    names = [trace.name for trace in figure.data]
    assert names == ["code", "rate-standardised code", "cosine of h, raw", "SimHash, rate-matched"]
    found = [result.layer(i).difference("code").estimate for i in (1, 4)]
    np.testing.assert_allclose(figure.data[0].x, [each.value for each in found])
    np.testing.assert_allclose(figure.data[0].error_x.array, [each.high - each.value for each in found])
    band = figure.layout.shapes[0]
    assert (band.x0, band.x1) == (-0.01, 0.01)
    assert figure.layout.yaxis.ticktext == ("layer 1", "layer 4")
    with pytest.raises(PolytopeError, match="no score 'purity'"):
        result.plot("purity")


def _thirty_layers(result: ClustersResult) -> ClustersResult:
    """Thirty layers: 0-2 supported, 3-22 behind by two cells, 23-29 open, all by planted numbers."""
    layers = []
    for i in range(30):
        outcome = "supported" if i < 3 else "behind" if i < 23 else "inconclusive"
        score, reference = ("AMI", CENTRED) if i < 13 else (AGREEMENT, SIMHASH)
        value = {"supported": 0.1, "behind": -0.1, "inconclusive": 0.02}[outcome] + 0.001 * ((i * 7) % 30)
        deciding = Estimate(value, 0.02, value - 0.0392, value + 0.0392)
        old = result.layers[0]
        verdict = replace(
            old.verdict, outcome=outcome, deciding=deciding, deciding_score=score, deciding_reference=reference
        )
        layers.append(replace(old, site=replace(old.site, layer=i), verdict=verdict))
    return replace(result, layers=tuple(layers))


def test_the_sentence_over_thirty_layers_names_each_deciding_cell(result) -> None:
    many = _thirty_layers(result)
    said = many.verdict
    assert said.startswith(
        f"Supported in 3 of 30 layers (0-2), by AMI against {CENTRED} (lowest in 0, +0.100 [+0.061, +0.139]); "
        f"behind in 20 of 30 layers (3-22), by AMI against {CENTRED} (3-12: lowest in 9, -0.097 [-0.136, -0.058]) and "
        f"by {AGREEMENT} against {SIMHASH} (13-22: lowest in 13, -0.099 [-0.138, -0.060]); inconclusive in 7 of 30 "
        f"layers (23-29), by {AGREEMENT} against {SIMHASH} (lowest in 26, "
    )
    assert "Premises: piecewise affine (relu), with biases, LayerNorm before it." in said
    assert len(said) < 900
    outside = replace(many.layers[4].verdict, premises_met=False, premises="gated (silu); outside")
    mixed = (*many.layers[:4], replace(many.layers[4], verdict=outside), *many.layers[5:])
    said = replace(many, layers=mixed).verdict
    assert "Outside the paper's premises in layer 4. Premises: piecewise affine (relu)" in said
    assert "before it; gated (silu)." in said


def test_at_a_prompt_a_result_is_its_verdict(result) -> None:
    sample = result.sample
    assert repr(result) == f"<ClustersResult: {result.verdict}>"
    assert f"{sample.tokens} tokens of {sample.documents} documents" in repr(result)
    assert len(repr(result)) < 1000


def test_html_is_escaped(result) -> None:
    settings = replace(result.settings, label="<script>alert(1)</script>")
    text = replace(result, settings=settings)._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<tr>") == 1 + 2 * 5


def test_asking_for_what_is_not_there_lists_what_is(result) -> None:
    layer = result.layer(1)
    with pytest.raises(PolytopeError, match="no score 'purity' in this result; there are 'AMI'"):
        layer.representation("code").score("purity")
    with pytest.raises(PolytopeError, match="no difference of 'cosine of h, raw' from 'better cosine of h'"):
        layer.difference("cosine of h, raw", BEST_COSINE)
