"""The whole test on planted truth, 50 runs a world, and on real codes with labels exchanged 200 times.

`python -m benchmarks.calibration` does 1,000 runs of the full size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind

import polytope_lm as plm
from analyses._running import read_lines
from benchmarks import calibration as benchmark
from benchmarks._runs import missing_jobs
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.calibration.result import CalibrationResult, CellRate, LayerCalibration
from polytope_lm.predictions.calibration.splits import within
from polytope_lm.predictions.calibration.trials import (
    CELLS,
    cell_rates,
    exchanged,
    of_the_label,
    rate_of,
    representations,
    set_up,
    trial,
    trial_of,
)
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI
from polytope_lm.predictions.clusters.sampling import choose
from polytope_lm.predictions.clusters.scoring import BUILT_IN, make_task
from polytope_lm.statistics.estimate import Estimate, effective_number
from polytope_lm.statistics.nulls import Rate
from polytope_lm.statistics.verdict import OUTCOMES

RUNS = 40


def _trials(make, k: int) -> list:
    """Put `RUNS` fresh worlds to the test."""
    found = []
    for seed in range(RUNS):
        codes = make(seed)
        sample = choose(codes, "label", tokens=len(codes), seed=seed)
        bench = set_up(codes, 0, make_task(sample, k, seed, 20), representations(2))
        found.append(trial(bench, of_the_label(bench), 0, 0.01))
    return found


def test_a_true_effect_is_found() -> None:
    trials = _trials(lambda seed: plm.worlds.code_world(0.04, tokens=1200, documents=60, seed=seed), 50)
    assert rate_of(trials, "supported").events >= 0.8 * RUNS
    assert rate_of(trials, "behind").events + rate_of(trials, "no lead").events == 0
    # The interval covers the mean over worlds, and its sd is the spread over them.
    for i, (score, reference) in enumerate(CELLS):
        found = [each.differences[i] for each in trials]
        true = np.mean([each.value for each in found])
        assert sum(not each.low <= true <= each.high for each in found) <= 7, (score, reference)
        stated = np.sqrt(np.mean([each.sd**2 for each in found]))
        assert 0.7 < stated / np.std([each.value for each in found]) < 2, (score, reference)


def test_directions_are_not_taken_for_regions() -> None:
    trials = _trials(lambda seed: plm.worlds.direction_world(tokens=500, documents=50, seed=seed), 16)
    assert rate_of(trials, "supported").events == 0
    assert sum(rate_of(trials, name).events for name in ("behind", "no lead", "mixed")) >= RUNS / 4


@pytest.mark.parametrize("sizes", ["equal", "zipf"])
def test_nothing_is_found_where_there_is_nothing(sizes: str) -> None:
    trials = _trials(lambda seed: plm.worlds.null_world(sizes, tokens=600, documents=60, seed=seed), 20)
    assert rate_of(trials, "supported").events == 0
    for cell in cell_rates(trials):
        # Of 40 fair intervals 2 exclude 0, and more than 7 in one set of a thousand.
        assert cell.excludes_zero.events <= 7
        assert abs(cell.mean) < 0.005
    for i, (score, _) in enumerate(CELLS):
        stated = np.sqrt(np.mean([each.differences[i].sd ** 2 for each in trials]))
        true = np.std([each.differences[i].value for each in trials])
        # Sums over documents are fair; halves hold what clustering anew adds to a half.
        assert (0.75 if score == AGREEMENT else 0.9) < stated / true < (1.5 if score == AGREEMENT else 2.2)


@pytest.fixture(scope="module")
def real_codes():
    documents = plm.documents("sample")
    return plm.encode(plm.load("tiny-gpt2"), documents, layers=[1, 2], tokens="random:12", keep=("u", "h"))


@pytest.mark.parametrize("exchange", ["between documents", "drawn per document"])
def test_real_codes_with_exchanged_labels_are_hardly_ever_supported(real_codes, exchange: str) -> None:
    options = {"runs": 200, "k": 12, "draws": 2, "resamples": 20, "tokens": 700, "splits": 0}
    result = plm.calibrate(real_codes, 1, "class", exchange=exchange, **options)
    layer = result.layers[0]
    assert (layer.supported.runs, result.runs) == (200, 200)
    assert layer.supported.events <= 5
    # The 99.95th percentile of 200 fair intervals is 21 (10.5 %).
    assert max(cell.excludes_zero.events for cell in layer.cells) <= 21


def test_a_calibration_saves_shows_and_repeats_itself(real_codes, tmp_path) -> None:
    options = {"runs": 4, "k": 8, "draws": 1, "resamples": 8, "tokens": 400, "splits": 2}
    result = plm.calibrate(real_codes, None, "class", **options)
    assert result == plm.calibrate(real_codes, None, "class", **options)
    path = result.save(tmp_path)
    assert CalibrationResult.load(tmp_path).to_dict() == result.to_dict()
    before = path.read_bytes()
    CalibrationResult.load(tmp_path).save(tmp_path)
    assert path.read_bytes() == before
    frame = result.to_frame()
    assert list(frame["layer"].unique()) == [1, 2]
    assert len(frame) == 2 * (6 + 2 * len(CELLS))
    outcomes = frame[frame["rate"].isin(OUTCOMES)].groupby("layer")["events"].sum()
    assert outcomes.tolist() == [4, 4]
    assert set(frame[frame["rate"].str.endswith("halves agree")]["runs"]) == {2}
    assert ((frame["low"] <= frame["value"]) & (frame["value"] <= frame["high"])).all()
    assert len(result.plot().data) == 6 + len(CELLS)
    assert len(result.figures()["halves"].data) == len(CELLS)
    assert repr(result) == f"<CalibrationResult: {result.headline}>"
    sample = choose(real_codes, "class", tokens=400, seed=0)
    assert result.effective == pytest.approx(effective_number(sample.documents))
    assert f"(effectively {result.effective:.0f}), k = 8. Premises: smooth (gelu_new), with biases" in result.headline
    assert result.pooled == pytest.approx(frame[frame["rate"].str.endswith("excludes 0")]["value"].mean())
    assert result.agreeing == pytest.approx(frame[frame["rate"].str.endswith("halves agree")]["value"].mean())
    weighed = replace(result, provenance={**result.provenance, "weights": "dequantised from 4 bits"})
    assert "Weights dequantised from 4 bits." in weighed.headline
    assert "<table" in result._repr_html_()
    path.write_text("{}")
    with pytest.raises(PolytopeError, match=r"calibration\.json"):
        CalibrationResult.load(tmp_path)


def test_unchanged_labels_give_the_differences_of_the_comparison_itself() -> None:
    codes = plm.worlds.direction_world(tokens=400, documents=20)
    result = plm.predictions.clusters(codes, label="label", k=10, resamples=20)
    sample = choose(codes, "label", tokens=6000, seed=0)
    bench = set_up(codes, 0, make_task(sample, 10, 0, 20), representations(5))
    mine = trial(bench, of_the_label(bench), 0, 0.01)
    theirs = trial_of(result.layers[0])
    assert mine.outcome == theirs.outcome
    # Whether the label can be seen is asked of the same representations, the rate-standardised code among them.
    assert list(bench.layouts) == list(BUILT_IN)
    for one, other in zip(mine.differences, theirs.differences, strict=True):
        assert (one.value, one.sd) == pytest.approx((other.value, other.sd))
    assert [score for score, _ in CELLS] == [AMI] * 3 + [AGREEMENT] * 3


def test_halves_of_a_split_share_no_random_choice(real_codes, monkeypatch) -> None:
    """With one seed both would have the same random hyperplanes, whose luck would then be no difference."""
    from polytope_lm.predictions.calibration import splits

    seeds: list[int] = []

    def noted(sample, k, seed, resamples):
        seeds.append(seed)
        return make_task(sample, k, seed, resamples)

    monkeypatch.setattr(splits, "make_task", noted)
    samples = {
        label: choose(real_codes, label, tokens=400, seed=0, also=("class", "group")) for label in ("class", "group")
    }
    for number in range(2):
        splits.halves_agree(
            real_codes, 1, samples, number, k=6, draws=1, seed=0, resamples=4, smallest_effect=0.01
        )  # fmt: skip
    # Both labels of a half share its clusters, and so its seed.
    assert seeds[::2] == seeds[1::2]
    assert len(set(seeds)) == 4


def test_two_halves_agree_where_welchs_test_says_so() -> None:
    rng, said = np.random.default_rng(0), []
    for _ in range(60):
        a, b = rng.normal(0, 1, 9), rng.normal(1.2, 2, 14)
        each = [Estimate.around(x.mean(), x.std(ddof=1) / np.sqrt(len(x)), len(x) - 1) for x in (a, b)]
        said.append(within(*each))
        assert said[-1] == (ttest_ind(a, b, equal_var=False).pvalue >= 0.05)
    assert 10 < sum(said) < 55


def test_halves_of_the_documents_agree_on_the_real_labels_and_too_few_are_told() -> None:
    codes = plm.worlds.code_world(0.04, tokens=480, documents=48, seed=0)
    options = {"k": 12, "draws": 1, "runs": 1, "resamples": 8, "label": "label"}
    found = plm.calibrate(codes, splits=8, **options)
    assert {cell.agree.runs for cell in found.layers[0].cells} == {8}
    # Of 48 comparisons 2 fail in fair intervals; seen from too narrow ones (half as wide) 15 would.
    assert found.agreeing > 0.8
    assert f"agree in {found.agreeing:.1%} of comparisons" in found.headline
    few = plm.worlds.code_world(0.04, tokens=300, documents=12, seed=0)
    told = plm.calibrate(few, splits=3, **options)
    assert told.agreeing is None
    assert told.layers[0].cells[0].agree is None
    (note,) = told.notes()
    assert note.startswith("3 of 3 splits of the documents left out: 6 documents count for 6.0")


def _said(supported: int, away: int, exchange: str = "between documents") -> str:
    """Return the headline of a calibration of 200 runs."""
    cells = tuple(CellRate(score, reference, 0.0, Rate.of(away, 200)) for score, reference in CELLS)
    layer = LayerCalibration(3, "L03.pre", Rate.of(supported, 200), cells)
    return CalibrationResult("upos", exchange, 200, 9, 10, 5, 0, 40, 0.01, 500, 50, (layer,)).headline


def test_the_first_sentence_says_whether_the_test_is_wrong() -> None:
    assert _said(2, 8).startswith("No sign that the test is wrong on these codes: with the labels 'upos' exchanged")
    assert "4.0% of all intervals excluded 0" in _said(2, 8)
    assert _said(12, 8).startswith("The test is wrong too often on these codes: ")
    assert _said(2, 20).startswith("The test is wrong too often on these codes: ")
    assert "no null" in _said(90, 90, "within word and document").partition(":")[0]


def test_labels_exchanged_within_word_and_document_stay_there() -> None:
    codes = plm.worlds.null_world(tokens=3000, documents=10)
    sample = choose(codes, "label", tokens=3000, seed=0, per_document=None)
    task = make_task(sample, 10, 0, 4)
    several = exchanged(task, "within word and document", 2)
    assert (several[0] != several[1]).any()
    cells = sample.groups[:, 1].astype(int) * 1000 + sample.documents
    for new in several:
        assert (new != sample.labels).any()
        for cell in np.unique(cells)[:200]:
            assert sorted(new[cells == cell]) == sorted(sample.labels[cells == cell])


def test_rates_are_those_of_clopper_and_pearson() -> None:
    rate = Rate.of(3, 100)
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.03, 0.00623, 0.08518), abs=1e-5)
    assert Rate.of(0, 50).low == 0
    assert Rate.of(0, 50).high == pytest.approx(1 - 0.025 ** (1 / 50))
    with pytest.raises(PolytopeError, match="5 events in 4 runs"):
        Rate.of(5, 4)


def test_a_calibration_refuses_what_gives_no_rate(real_codes) -> None:
    for options, message in [
        ({"runs": 0}, "runs = 0"),
        ({"exchange": "freely"}, "no exchange of labels 'freely'; choose 'between documents', "),
        ({"draws": 0}, "draws = 0"),
        ({"splits": -1}, "splits = -1"),
        ({"k": 10**6}, "k = 1000000 clusters"),
        ({"label": "mood"}, "no label 'mood'"),
        ({"layer": 9}, "9"),
    ]:
        with pytest.raises(PolytopeError, match=message):
            plm.calibrate(real_codes, **({"label": "class", "runs": 1, "tokens": 300, "resamples": 4} | options))


def test_an_interrupted_benchmark_goes_on(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"world": "null equal", "seed": 0, "outcome": "refuted", "cells": [[0, -1, 1]]}\n{"wor')
    assert [line["seed"] for line in read_lines(path)] == [0]
    wanted = [(world, run) for run in range(4) for world in ("null equal", "direction")]
    missing = missing_jobs(path, wanted, {"null equal": 2, "direction": 1})
    assert missing[:3] == [("direction", [0]), ("null equal", [1]), ("direction", [1])]
    assert ("null equal", [2, 3]) in missing


def test_the_benchmarks_runs_of_one_world_share_its_codes_and_not_its_labels() -> None:
    first, second = benchmark.planted_runs("direction", 3, [0]), benchmark.planted_runs("null equal", 3, [0, 1])
    assert [line["seed"] for line in first] == [3]
    lines = list(second)
    assert [line["seed"] for line in lines] == [30, 31]
    assert lines[0]["cells"] != lines[1]["cells"]
    assert lines[1]["seconds"] < lines[0]["seconds"] / 3


def test_the_documents_that_would_reach_the_power() -> None:
    """One cell of mean .03, spread .01 and reach .02: 90 % take z(.9) sd of its distance beyond the bound."""
    value = 0.03 + 0.01 * norm.ppf((np.arange(1000) + 0.5) / 1000)
    lines = [{"cells": [[each, each - 0.02, each + 0.02]]} for each in value]
    needed = ((norm.ppf(0.9) * 0.01 + 0.02) / 0.02) ** 2
    assert benchmark.enough(lines) == pytest.approx(needed, rel=0.02)
    assert benchmark.enough([{"cells": [[each - 0.02, 0, 1]]} for each in value]) is None
