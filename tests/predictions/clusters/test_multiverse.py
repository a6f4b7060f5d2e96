from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters, multiverse
from polytope_lm.predictions.clusters import clusterers
from polytope_lm.predictions.clusters.clusterers import clusterer, partition
from polytope_lm.predictions.clusters.multiverse import default_ks
from polytope_lm.predictions.clusters.result import AMI, BEST_COSINE, SIMHASH
from polytope_lm.predictions.clusters.sampling import choose
from polytope_lm.predictions.clusters.specifications import Cell, Draw, Multiverse, with_leads
from polytope_lm.representations.directions import CENTRED, COSINES, RAW

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"labels": ("upos", "word"), "ks": (6, 12), "sample_seeds": (0, 5)}


@pytest.fixture(autouse=True)
def _leave_no_clusterer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusterers, "_REGISTRY", dict(clusterers._REGISTRY))


def test_every_combination_is_a_cell(world) -> None:
    found = multiverse(world("code", n=400, documents=30), **SMALL)
    frame = found.to_frame()
    # Two clusterers with two k and one without, two labels, two seeds, five representations.
    assert len(frame) == (2 * 2 + 1) * 2 * 2 * 5
    assert set(frame["clusterer"]) == {"k-medoids", "average linkage", "hdbscan"}
    assert frame.loc[frame["clusterer"] == "hdbscan", "k"].isna().all()
    assert not frame.duplicated(["layer", "label", "clusterer", "k", "seed", "representation"]).any()
    assert (frame.loc[frame["representation"] == SIMHASH, "draws"] == 5).all()
    medoids = frame[frame["clusterer"] == "k-medoids"]
    assert (medoids["clusters"] == medoids["k"]).all()
    assert (medoids["noise share"] == 0).all()
    assert (frame.loc[frame["clusterer"] == "hdbscan", "noise share"] > 0).any()


def test_a_cell_is_what_clusters_finds_with_its_seed_and_k(world) -> None:
    codes = world("direction")
    options = {"ks": (12,), "sample_seeds": (3,), "clusterers": ["k-medoids"]}
    cells = multiverse(codes, 4, labels="upos", tokens=500, **options).cells
    result = clusters(codes, 4, k=12, seed=3, resamples=20, tokens=500, comparators=False).layers[0]
    primary = {cell.representation: cell for cell in cells if cell.clusterer == "k-medoids"}
    for each in result.representations:
        cell, score = primary[each.name], each.score(AMI)
        assert cell.ami == pytest.approx(score.level, abs=1e-12)
        assert len(cell.draws) == len(score.draws or (cell.ami,))
        assert (cell.n, cell.draws[0].largest_share) == (score.n, max(each.cluster_sizes) / score.n)
    for reference in (*COSINES, SIMHASH):
        expected = primary["code"].ami - primary[reference].ami
        assert primary["code"].over(reference) == pytest.approx(expected, abs=1e-12)
    assert primary["code"].over(BEST_COSINE) is None


def test_a_density_cell_scores_the_clustered_tokens_only(world) -> None:
    codes = world("code")
    cells = multiverse(codes, labels="upos", ks=(6,), sample_seeds=(0,), clusterers=["hdbscan"]).cells
    sample = choose(codes, "upos", tokens=6000, seed=0)
    made = partition(codes, clusterer="hdbscan", rows=sample.rows)
    cell = next(each for each in cells if each.representation == "code")
    inside = made.labels >= 0
    assert 0 < cell.noise_share == (~inside).mean()
    assert cell.ami == pytest.approx(adjusted_mutual_info_score(sample.labels[inside], made.labels[inside]))
    assert (cell.k, cell.clusters) == (None, made.clusters)


def _cell(representation: str, *amis: float | None, k: int = 5) -> Cell:
    draws = tuple(Draw(ami, 0.25 if representation == RAW else 0.5, 3, 0.5) for ami in amis)
    return Cell(4, "L04.pre", "upos", "hdbscan", k, 0, representation, "other", 90, draws)


def test_leads_are_over_each_cosine_and_the_mean_draw_of_the_same_choices() -> None:
    cells = [
        _cell("code", 0.5),
        _cell(RAW, 0.4),
        _cell(CENTRED, 0.3),
        _cell(SIMHASH, 0.1, 0.2),
        _cell("code", 0.9, k=7),
    ]
    code, raw, _, simhash, alone = with_leads(cells)
    assert (code.over_raw, code.over_centred, code.over_simhash) == pytest.approx((0.1, 0.2, 0.35))
    assert (raw.over_raw, raw.over_centred, raw.over_simhash) == (None, pytest.approx(0.1), pytest.approx(0.25))
    assert (simhash.over_raw, simhash.over_simhash) == (pytest.approx(-0.25), None)
    assert (alone.over_raw, alone.over_centred, alone.over_simhash) == (None, None, None)
    assert all(each.over_cosine is None for each in (code, raw, simhash, alone))
    empty = with_leads([_cell("code", 0.5), _cell(SIMHASH, 0.1, None)])
    assert (empty[1].ami, empty[0].over_simhash) == (None, None)
    frame = Multiverse(with_leads(cells), (), {}, {}, {}, "").to_frame()
    assert (frame["raw cosine's noise share"][0], frame["centred cosine's noise share"][0]) == (0.25, 0.5)
    assert frame["over raw cosine"][0] == pytest.approx(0.1)
    assert frame["SimHash's noise share"][0] == 0.5


def test_distances_are_computed_once_for_all_k_labels_and_clusterers(world, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = clusterers.pairwise
    monkeypatch.setattr(clusterers, "pairwise", lambda rows, name: (asked.append(name), real(rows, name))[1])
    medoids = {**SMALL, "clusterers": ("k-medoids", "average linkage")}
    multiverse(world("code", n=200, documents=30, layers=(4, 8)), **medoids)
    # Two layers, two seeds: the code and both cosines once, SimHash once a draw.
    assert pd.Series(asked).value_counts().to_dict() == {
        "code": 4,
        "rate-standardised code": 4,
        **dict.fromkeys(COSINES, 4),
        SIMHASH: 20,
    }


def test_what_can_not_run_is_left_out_with_its_reason_and_the_rest_runs(world) -> None:
    codes = world("code", n=300, documents=30, kept=())
    found = multiverse(codes, labels=("upos", "word"), ks=(6,), sample_seeds=(0,))
    assert {cell.representation for cell in found.cells} == {"code", "rate-standardised code"}
    why = {each.what: each.why for each in found.left_out}
    assert "capture again with `keep=" in why[f"layer 4, seed 0, {RAW}"]
    assert "'u' of layer 4 was not kept" in why[f"layer 4, seed 0, {SIMHASH}"]
    assert not [column for column in found.to_frame() if column.startswith("over ")]
    assert "no verdict" in repr(found)
    with pytest.raises(PolytopeError, match="no cell of 'code' against 'cosine of h, centred'"):
        found.plot()


def test_a_label_with_one_value_is_left_out(world) -> None:
    codes = world("code", n=300, documents=30)
    table = codes.tokens.assign(same="x", late=codes.tokens["upos"].where(codes.tokens["document"] > 14))
    codes = replace(codes, table=table)
    options = {"ks": (6,), "sample_seeds": (0,), "clusterers": ["k-medoids"]}
    found = multiverse(codes, labels=("upos", "same", "late"), **options)
    assert {cell.label for cell in found.cells} == {"upos", "late"}
    assert found.left_out[0].what == "label 'same', seed 0"
    sizes = {cell.label: cell.n for cell in found.cells}
    assert sizes["late"] < sizes["upos"]
    with pytest.raises(PolytopeError, match="nothing to cluster; label 'same', seed 0: label 'same' has one value"):
        multiverse(codes, labels="same")


def test_a_k_that_one_label_can_not_have_is_left_out_for_it(world) -> None:
    codes = world("code", n=300, documents=30)
    few = codes.tokens["upos"].where(codes.tokens["document"] > 25)
    codes = replace(codes, table=codes.tokens.assign(few=few))
    found = multiverse(codes, labels=("upos", "few"), ks=(100,), sample_seeds=(0,), clusterers=["k-medoids"])
    assert {cell.label for cell in found.cells} == {"upos"}
    assert "k = 100 clusters of" in found.left_out[0].why


def test_all_noise_is_said(world) -> None:
    clusterer("nothing", takes_k=False)(lambda space, *_: np.full(len(space), -1))
    found = multiverse(world("code", n=300, documents=30), ks=(6,), sample_seeds=(0,), clusterers=["nothing"])
    assert all(cell.ami is None and cell.noise_share == 1 for cell in found.cells)
    assert found.left_out[0].why == "every token is noise in 1 of 1 draws"
    assert "no verdict" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": "pos"}, "no label 'pos'; these codes have 'word', 'upos'"),
        ({"clusterers": ["dbscan"]}, "no clusterer 'dbscan'; registered are 'k-medoids'"),
        ({"representations": ["codes"]}, "no representation 'codes'"),
        ({"ks": (6, 5000)}, "k = 5000 clusters of 270 tokens"),
        ({"ks": (1,)}, "k = 1 clusters of"),
        ({"layers": 3}, "layer 3 is not in these codes; captured layers: 4"),
        ({"sample_seeds": ()}, "nothing to cluster"),
        ({"sample_seeds": (-1,)}, "seed = -1 is no seed"),
    ],
)
def test_mistakes_are_one_line(world, options: dict, says: str) -> None:
    with pytest.raises(PolytopeError, match=says) as caught:
        multiverse(world("code", n=300, documents=30), **options)
    assert "\n" not in str(caught.value)


def test_the_same_choices_give_the_same_bytes_but_for_timings(world, tmp_path: Path) -> None:
    options = {**SMALL, "sample_seeds": (3,)}
    paths = [multiverse(world("code", n=200, documents=30), **options).save(tmp_path / name) for name in ("a", "b")]
    data = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert all(each.pop("timings") for each in data)
    assert json.dumps(data[0]) == json.dumps(data[1])
    loaded = Multiverse.load(tmp_path / "a")
    assert loaded == Multiverse.from_dict(json.loads(paths[0].read_text(encoding="utf-8")))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "multiverse.json").read_bytes() == paths[0].read_bytes()
    # Scores, never texts.
    assert "document 1" not in paths[0].read_text(encoding="utf-8")


def test_what_is_no_multiverse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolytopeError, match=r"multiverse\.json"):
        Multiverse.load(tmp_path)
    for text in ("[]", "not json", '{"prediction": "clusters", "format": 1}'):
        (tmp_path / "multiverse.json").write_text(text, encoding="utf-8")
        with pytest.raises(PolytopeError, match=r"multiverse\.json"):
            Multiverse.load(tmp_path)


def test_the_curve_is_sorted_and_each_columns_marks_are_its_choices() -> None:
    rng = np.random.default_rng(0)
    cells = [
        replace(_cell(name, rng.random()), clusterer=by, k=k, seed=seed, label=label)
        for name in ("code", RAW)
        for by, k in (("k-medoids", 6), ("k-medoids", 12), ("hdbscan", None))
        for seed in (0, 5)
        for label in ("upos", "word")
    ]
    found = Multiverse(with_leads(cells), (), {}, {}, {}, "")
    figure = found.plot(reference=RAW)
    leads = [trace for trace in figure.data if trace.yaxis == "y"]
    marks = [trace for trace in figure.data if trace.yaxis == "y2"]
    points = sorted((x, y) for trace in leads for x, y in zip(trace.x, trace.y, strict=True))
    expected = found.leads(reference=RAW)
    assert len(expected) == 12
    assert [y for _, y in points] == [cell.over_raw for cell in expected] == sorted(y for _, y in points)
    rows = list(figure.layout.yaxis2.ticktext)
    # One layer only, so it has no row.
    assert rows == [
        *("label: upos", "label: word", "clusterer: hdbscan", "clusterer: k-medoids"),
        *("k: 6", "k: 12", "k: none", "seed: 0", "seed: 5"),
    ]
    for x, cell in enumerate(expected):
        made = {rows[y] for trace in marks for at, y in zip(trace.x, trace.y, strict=True) if at == x}
        k = "none" if cell.k is None else cell.k
        assert made == {f"label: {cell.label}", f"clusterer: {cell.clusterer}", f"k: {k}", f"seed: {cell.seed}"}
    with pytest.raises(PolytopeError, match="no reference 'cosine'"):
        found.plot("code", "cosine")


def test_names_from_outside_are_inert_in_the_picture(world) -> None:
    clusterer("<b>mine</b>", takes_k=False)(lambda space, *_: np.arange(len(space)) % 3)
    codes = world("code", n=300, documents=30)
    found = multiverse(codes, ks=(6,), sample_seeds=(0,), clusterers=["<b>mine</b>", "k-medoids"])
    text = found.plot().to_json()
    assert "&lt;b" in text
    assert "\\u003cb\\u003e" not in text
    assert "<b>" not in text
    assert "<b>mine" not in found._repr_html_()


def test_joined_codes_are_swept_like_a_layers(world) -> None:
    codes = world("code", n=300, documents=30, layers=(4, 8)).joined([4, 8])
    found = multiverse(codes, ks=(6,), sample_seeds=(0,), clusterers=["k-medoids"])
    assert {cell.site for cell in found.cells} == {"L04+08.pre"}
    assert len(found.cells) == 5


def test_the_verdict_of_joined_codes_names_both_layers(world) -> None:
    codes = world("code", layers=(4, 8))
    joined = clusters(codes.joined([4, 8]), k=12, resamples=40)
    assert joined.verdict.startswith("Layers 4 + 8: supported. ")
    assert joined.layers[0].site.width == 512
    one = clusters(codes, 4, k=12, resamples=40)
    ami = [result.layers[0].representation("code").score(AMI).estimate.value for result in (joined, one)]
    assert ami[0] > ami[1]
    loaded = type(joined).from_dict(joined.to_dict())
    assert loaded.layers[0].site == joined.layers[0].site


@pytest.mark.parametrize(("n", "ks"), [(6000, (50, 100, 200)), (600, (5, 10, 20)), (100, (2, 4)), (3, (2,))])
def test_k_is_swept_around_that_of_the_verdict(n: int, ks: tuple[int, ...]) -> None:
    assert default_ks(n) == ks
