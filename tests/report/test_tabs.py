"""Tabs of the other results: every choice, more scores of groups, boundaries, alignment."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm import report
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.slices import Slice
from polytope_lm.models.sites import Premises, Site
from polytope_lm.pairs import Problem
from polytope_lm.predictions.alignment.result import (
    OTHER_PAIRS,
    PRIMARY,
    SCORE,
    SPEED,
    AlignedProfile,
    AlignmentResult,
    LayerAlignment,
)
from polytope_lm.predictions.boundaries.result import (
    Balance,
    BoundariesResult,
    BoundarySettings,
    LayerBoundaries,
    Shuffled,
    WeightsControl,
)
from polytope_lm.predictions.calibration.result import CalibrationResult, CellRate, LayerCalibration
from polytope_lm.predictions.clusters.result import SIMHASH
from polytope_lm.predictions.clusters.specifications import Cell as Specification
from polytope_lm.predictions.clusters.specifications import Draw, LeftOut, Multiverse, with_leads
from polytope_lm.predictions.groups.result import GroupScore, GroupScores, GroupSettings, Lead, RepresentationScores
from polytope_lm.representations.directions import COSINES
from polytope_lm.statistics.confounders import Effect
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.nulls import AgainstNull, Rate
from polytope_lm.statistics.verdict import Cell, decide

NASTY = "<img src=x onerror='window.hurt = 1'>"


def near(value: float, sd: float = 0.01) -> Estimate:
    return Estimate(value, sd, value - 1.96 * sd, value + 1.96 * sd)


def site(layer: int) -> Site:
    return Site(
        layer, "gate", f"blocks.{layer}.mlp.hook_gate", 96, 32, Premises("gated", "silu", biased=False, norm="RMSNorm")
    )


@pytest.fixture(scope="module")
def multiverse() -> Multiverse:
    rng = np.random.default_rng(0)
    names = {"code": "claim", **dict.fromkeys(COSINES, "reference"), SIMHASH: "control"}
    cells = [
        Specification(
            layer, f"L{layer:02d}.gate", label, clusterer, k, seed, name, role, 900,
            (Draw(float(rng.uniform(0.1, 0.3)), 0.4 if k is None else 0.0, 20, 0.1),),
        )
        for layer in (0, 4)
        for label in ("upos", NASTY)
        for clusterer, k in (("k-medoids", 15), ("k-medoids", 30), ("hdbscan", None))
        for seed in (0, 1)
        for name, role in names.items()
    ]  # fmt: skip
    left_out = (LeftOut("layer 0, seed 1, hdbscan", f"{NASTY} is no label"),)
    return Multiverse(with_leads(cells), left_out, {}, {"model": "m"}, {}, "plm.predictions.multiverse(codes)")


@pytest.fixture(scope="module")
def groups() -> GroupScores:
    null = AgainstNull(0.4, 0.2, 0.05, 4.0, 0.005, 199)
    scores = (
        GroupScore("label purity", 0.4, "higher", "share", 880, 20, near(0.4), null, null, NASTY),
        GroupScore("next-token divergence", 0.31, "lower", "bits", 500, 400, None, null),
    )
    each = tuple(
        RepresentationScores(name, 12, 90, 20, scores, {"stability": "too few documents"})
        for name in ("code", "centred cosine of h")
    )
    settings = GroupSettings("upos", "token_id", 500, 200, 199, 200, 5, 0, "minilm-l6", "40 characters")
    leads = (Lead("code", "label purity", "centred cosine of h", near(-0.02)),)
    return GroupScores(settings, "L04.gate", 900, 60, each, leads, {"1-NN accuracy": "no"}, {"model": "m"}, {}, "again")


@pytest.fixture(scope="module")
def boundaries() -> BoundariesResult:
    def effect(name: str, how: str, value: float) -> Effect:
        return Effect(name, how, near(value), near(value, 0.007), 240)

    def layer(index: int) -> LayerBoundaries:
        effects = tuple(
            effect(name, how, value)
            for name, how, value in (
                ("crossings", "raw", 0.8),
                ("cosine distance in h", "raw", 0.79),
                ("flip-backs", "raw", 0.6),
                ("flip-backs", "matched", 0.52),
                ("flip-backs", "regressed", 0.51),
            )
        )
        cells = (Cell("covariates", "AUC", near(0.01)), Cell("hyperplanes", "AUC", near(0.0)))
        verdict = decide(
            cells,
            place=f"Layer {index}",
            documents=24,
            smallest_effect=0.02,
            premises="gated; silu",
            premises_met=False,
        )
        control = WeightsControl(
            "untrained", effect("flip-backs", "regressed", 0.5), near(0.01), effect("crossings", "raw", 0.7)
        )
        left_out = {"path length": "equal to another"}
        return LayerBoundaries(
            site(index), 240, 120, 24, "groups", effects, ("endpoint Hamming",), left_out,
            {"crossings": 340.0, "path length": None}, 0.993, Balance(0.9, 0.1, 0.05), near(0.001),
            effect("flip-backs", "regressed", 0.5), (0.5, 0.51), (control,),
            Shuffled(200, 0.5, 0.46, 0.54, 0.05, 0.01, 0.4), 3, cells, verdict,
        )  # fmt: skip

    settings = BoundarySettings("built-in", "gate", "resid_mid", "line", 0, 200, 0.02, 2, ("untrained",), 200)
    return BoundariesResult(settings, (layer(0), layer(4)), (Problem(7, NASTY),), {"model": "m"}, {}, "again")


@pytest.fixture(scope="module")
def alignment() -> AlignmentResult:
    def layer(model: str) -> LayerAlignment:
        profiles = (
            AlignedProfile(PRIMARY, near(0.7), near(0.66), near(0.04), near(-0.02)),
            AlignedProfile(SPEED, near(0.75), near(0.68), near(0.07), None),
        )
        return LayerAlignment(model, site(4), 220, 20, 0, profiles, near(3.0), 0.6, 1.4, 0.001, 0.01)

    verdict = decide(
        [Cell(OTHER_PAIRS, SCORE, near(0.04))],
        place="Layer 4",
        documents=220,
        smallest_effect=0.02,
        premises="gated",
        premises_met=False,
    )
    return AlignmentResult(
        {"smallest_effect": 0.02}, (layer("m"),), (layer(f"m {NASTY}"),), (near(0.03),), (verdict,), {}, "again"
    )


@pytest.fixture(scope="module")
def page_of_all(tmp_path_factory, clusters_result, crossings_result, multiverse, groups, boundaries, alignment):
    path = tmp_path_factory.mktemp("all") / "report.html"
    return report.write(
        path, clusters=clusters_result(tokens=120), crossings=[crossings_result()], multiverse=multiverse,
        groups=[groups, replace(groups, site="L05.gate")], boundaries=boundaries, alignment=alignment,
    )  # fmt: skip


def test_every_number_is_on_the_page(page_of_all, multiverse, groups, boundaries, alignment):
    html = page_of_all.read_text(encoding="utf-8")
    assert NASTY not in html
    for cell in multiverse.cells:
        assert f'<td class="num">{cell.ami:.3f}</td>' in html
    for score in groups.representations[0].scores:
        assert f">{score.value:.3f}<" in html
    assert html.count("too few documents") == 4
    for effect in boundaries.layers[0].effects:
        assert f">{effect.by_group.low:.3f}<" in html
        assert f">{effect.by_pair.low:.3f}<" in html
    assert "∞" in html
    assert "path length</bdi> left out: <bdi" in html
    assert f"{alignment.layers[0].profiles[0].beyond_pairs.value:+.3f}" in html
    tabs = re.findall(r'id="tab-(\w+)"', html)
    assert [name for name in tabs if name in {"groups", "multiverse", "boundaries"}] == [
        "groups",
        "multiverse",
        "boundaries",
    ]


@pytest.mark.browser
def test_figures_are_drawn_in_the_page_s_colours(page_of_all, visit, multiverse):
    page = visit(page_of_all, "#multiverse").page
    for name in ("raw-cosine", "centred-cosine", "SimHash"):
        page.wait_for_selector(f'[data-figure="multiverse-{name}"] svg .point')
    first = page.locator('[data-figure="multiverse-centred-cosine"] .xy .point')
    assert first.count() == len(multiverse.leads())
    page.click("#tab-boundaries")
    page.wait_for_selector('[data-figure="boundaries"] svg .point')
    assert page.locator('[data-figure="boundaries"] svg .point').count() == 2 * 6
    ink = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--code').trim()")
    colours = page.evaluate("document.querySelector('[data-figure=boundaries]').data.map(t => t.marker.color)")
    assert ink in colours
    page.wait_for_selector('[data-figure="alignment"] svg .point')
    assert page.locator('[data-figure="alignment"] svg .point').count() == 4


@pytest.mark.browser
def test_boundaries_alone_have_a_first_screen(tmp_path, visit, boundaries, crossings_result):
    path = report.write(tmp_path / "b.html", boundaries=boundaries, crossings=[crossings_result()])
    page = visit(path).page
    assert "in both layers" in page.locator(".verdict h1").inner_text()
    assert page.locator(".finding").inner_text() == boundaries.verdict
    page.wait_for_selector('#panel-overview [data-figure="boundaries"] svg .point')
    sizes = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
    assert sizes == [800, 1280]


def test_alignment_alone_has_a_first_line(tmp_path, alignment):
    html = report.write(tmp_path / "a.html", alignment=alignment).read_text(encoding="utf-8")
    assert "Are polytope boundaries dense where the output changes?" in re.sub(r"<[^>]+>", "", html)


@pytest.mark.browser
def test_results_of_other_kinds_show_themselves(tmp_path, visit):
    rates = tuple(CellRate(score, "better cosine of h", 0.0, Rate.of(7, 100)) for score in ("AMI", NASTY))
    layer = LayerCalibration(2, "L02.pre", Rate.of(1, 100), rates, Rate.of(50, 100), Rate.of(60, 100))
    result = CalibrationResult(
        "upos", "documents", 100, 30, 10, 5, 0, 200, 0.01, 600, 60, (layer,), {"model": "tiny-gpt2"}, ""
    )
    result.save(tmp_path / "c")
    page = visit(report.from_directories([tmp_path / "c"], tmp_path / "r.html"), "#others").page
    assert page.locator("#panel-others tbody tr").count() == 5
    assert NASTY in page.locator("#panel-others table").inner_text()
    page.wait_for_selector('[data-figure^="other-0"] svg .point')


def test_each_kind_has_a_tab_and_the_first_line_asks_its_question(tmp_path):
    model = plm.load("tiny-gpt2")
    radius = plm.trust_radius(model, "The cat sat on the", 3, layer=1)
    change = plm.change(model, "The cat sat on the", "The dog lay on the", layer=1, most=4)
    page = report.write(tmp_path / "r.html", others=[radius, change, radius]).read_text(encoding="utf-8")
    tabs = re.findall(r'role="tab" id="tab-([^"]*)".*?>([^<]*)</button>', page)
    assert tabs == [
        ("overview", "Overview"), ("others", "Trust radius"), ("others-1", "Changes"), ("about", "How to read it"),
    ]  # fmt: skip
    shown = re.findall(r'class="figure whole" data-figure="other-(\d)', page)
    assert shown == ["0", "2", "1"]
    first = re.sub(r"<[^>]+>", "", page[page.index("<h1>") : page.index("</h1>")])
    assert first.startswith("How far can these directions be trusted? First-order estimates hold to 10%")


def test_scores_of_one_kind_stand_together(page_of_all, visit):
    page = visit(page_of_all, "#groups").page
    texts = page.locator("#panel-groups table").first.locator("tbody th").all_inner_texts()
    kinds = [text.splitlines()[0] for text in texts]
    assert len(dict.fromkeys(kinds)) == 1 + sum(a != b for a, b in pairwise(kinds))


def test_saved_results_come_back_on_one_page(tmp_path, multiverse, groups, boundaries, alignment):
    boundaries.save(tmp_path / "b")
    alignment.save(tmp_path / "a/result.json")
    multiverse.save(tmp_path / "m")
    groups.save(tmp_path / "m/layer-04")
    path = report.from_directories([tmp_path / each for each in "bam"], tmp_path / "r.html")
    tabs = re.findall(r'id="tab-(\w+)"', path.read_text(encoding="utf-8"))
    assert tabs == ["overview", "groups", "multiverse", "boundaries", "about"]


@pytest.fixture(scope="module")
def piece() -> Slice:
    """Three boundaries in a square, whose words are markup."""
    return Slice(
        prompts=("a", NASTY, "c"), tokens=("a", "<b>t</b>", "c"), site=site(4),
        corners=(-1.0, 1.0, -1.0, 1.0),
        points=np.array([[-0.5, -0.5], [0.5, -0.5], [0.0, 0.5]]), neurons=np.array([3, 5, 9]),
        lines=np.array([[[-1.0, x], [1.0, x]] for x in (-0.4, 0.1, 0.6)]),
        vertices=np.array([[x, y] for y in (-1.0, -0.4, 0.1, 0.6, 1.0) for x in (-1.0, 1.0)]),
        regions=tuple((2 * i, 2 * i + 1, 2 * i + 3, 2 * i + 2) for i in range(4)),
        grid=np.stack([np.linspace(-1, 1, 3)] * 2, axis=1), top=np.array([[1, 1, 2], [1, 2, 2], [1, 1, 2]]),
        words={1: NASTY, 2: "#000000"}, model="m",
    )  # fmt: skip


def test_a_saved_slice_comes_back_on_a_page(tmp_path, piece):
    file = piece.save(tmp_path / "s/slice-river.json")
    assert Slice.load(file).to_dict() == piece.to_dict()
    page = report.from_directories([tmp_path / "s"], tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r'id="tab-(\w+)"', page) == ["slices", "about"]
    assert "4 regions by 3 boundaries of 96" in page
    assert NASTY not in page
    assert "<b>t</b>" not in page
    file.write_text('{"prompts": []}')
    with pytest.raises(PolytopeError, match=r"slice-river.json: prompts"):
        Slice.load(file)


@pytest.mark.browser
def test_slices_are_drawn_and_tell_the_next_token_as_text(tmp_path, visit, piece):
    page = visit(report.write(tmp_path / "s.html", slices=[piece, piece])).page
    for index in (0, 1):
        page.wait_for_selector(f'[data-figure="slice-{index}"] svg .heatmaplayer image')
    shown = page.locator('[data-figure="slice-0"] svg .legendtext').all_text_contents()
    assert shown == [f"{NASTY!r}", "'#000000'", "boundaries"]
    assert page.locator('[data-figure="slice-0"] svg .gtitle').count() == 0
    texts = page.evaluate("document.querySelector('[data-figure=slice-0]').data[0].text.flat()")
    assert "'#000000'" in texts
    assert page.locator("main img").count() == 0


@pytest.mark.browser
def test_next_tokens_stand_below_the_strips(tmp_path, visit, crossings_result):
    pair = crossings_result(prompts=("one", "two"))
    change = replace(pair.output_change, top=(" and",) * 20 + (NASTY,) * 14)
    page = visit(report.write(tmp_path / "c.html", crossings=[replace(pair, output_change=change)])).page
    page.click("#tab-crossings")
    page.wait_for_selector('[data-figure="pair-0"] svg .bars .point')
    written = page.locator('[data-figure="pair-0"] svg .bartext').all_text_contents()
    assert written == ["' and'", repr(NASTY)]
    bars = page.locator('[data-figure="pair-0"] svg .bars .point')
    edge, turn = (box["x"] + box["width"] for box in (bars.nth(1).bounding_box(), bars.nth(0).bounding_box()))
    width = edge - bars.nth(0).bounding_box()["x"]
    middle = (change.t[19] + change.t[20]) / 2
    assert 1 - (edge - turn) / width == pytest.approx(middle, abs=0.01)
    strips = page.locator('[data-figure="pair-0"] svg .js-line').last.bounding_box()
    assert bars.nth(0).bounding_box()["y"] >= strips["y"] + strips["height"]
