"""Crossings where the output changes: profiles whose alignment is known, and a small model's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import percentileofscore
from small import SENTENCES

import polytope_lm as plm
from polytope_lm import report
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.pairs import Pair, read, write
from polytope_lm.paths.profile import PairProfiles, Profile
from polytope_lm.predictions.alignment.result import PRIMARY, SPEED, AlignmentResult
from polytope_lm.predictions.alignment.test import align, alignment

SITE = Site(2, "pre", "blocks.2.mlp.hook_pre", 64, 16, Premises("piecewise affine", "relu", True, "LayerNorm"))
STEPS = 33


def world(*, follows: str, pairs: int = 220, seed: int = 0) -> PairProfiles:
    """Make profiles with a hump in mid-path; crossings follow the pair's own `js`, its speed or nothing."""
    rng = np.random.default_rng(seed)
    steps = np.arange(STEPS)
    shared = np.exp(-(((steps - 16) / 7) ** 2))
    made = []
    for _ in range(pairs):
        peak = int(np.clip(rng.normal(16, 6), 0, 32).round())
        spike = np.exp(-((steps - peak) ** 2))
        speed = shared + rng.random(STEPS) + (2 * spike if follows == "speed" else 0)
        rate = 20 * shared + {"js": 60 * spike, "speed": 8 * speed, "nothing": 0 * steps}[follows] + 1
        counts = np.stack([rng.poisson(rate), rng.poisson(3 * rate)])
        js = 0.05 * (shared + rng.random(STEPS)) + 0.2 * spike
        totals = counts.sum(axis=1)
        made.append(
            Profile(
                layer=2, length=5.0, layers=np.array([2, 3]), counts=counts, crossings=totals, on=totals // 2,
                hamming=totals, returning=0 * totals, missed=np.array([0, 2]),
                lengths={"path": np.full(STEPS, 5 / STEPS), "u": 1 + rng.random(STEPS)}, js=js,
                top=np.repeat([1, 2], 17), residual=speed, distance=np.concatenate([[0], js.cumsum()]),
            )
        )  # fmt: skip
    return PairProfiles(SITE, {"model": "made", "at": "resid_mid", "shape": "line"}, tuple(made), ())


def test_crossings_at_the_outputs_own_peaks_are_supported():
    result = align([world(follows="js")], range(220), seed=1)
    (verdict,) = result.verdicts
    assert verdict.outcome == "supported"
    assert verdict.premises_met
    assert "Layer 2: supported. Ahead of every reference" in result.verdict
    assert "220 pairs" in result.verdict
    assert result.layers[0].primary.raw.value > 0.9
    assert result.layers[0].primary.name == PRIMARY


def test_a_hump_that_all_paths_share_is_refuted_though_a_shift_would_call_it_aligned():
    result = align([world(follows="nothing")], range(220), seed=1)
    (verdict,) = result.verdicts
    assert verdict.outcome != "supported"
    primary = result.layers[0].primary
    assert primary.raw.value > 0.7
    assert primary.beyond_pairs.low < 0.02


def test_crossings_that_only_follow_the_speed_do_not_beat_it():
    result = align([world(follows="speed")], range(220), seed=1)
    (verdict,) = result.verdicts
    assert result.layers[0].primary.beyond_pairs.low > 0.02  # beyond other pairs' peaks they are
    assert verdict.outcome in {"behind", "no lead", "mixed"}
    assert verdict.deciding_reference == SPEED


def test_the_numbers_are_those_of_loops():
    profiles = world(follows="js", pairs=12)
    groups = [f"g{i // 2}" for i in range(12)]
    found = align([profiles], groups, resamples=20).layers[0]
    made = [one for _, one in profiles.good]
    peaks = [int(np.argmax(one.js)) for one in made]

    def percentile(values, step):
        return (percentileofscore(np.delete(values, step), values[step], kind="mean")) / 100

    for row in found.profiles:
        values = [
            {
                PRIMARY: one.counts.sum(axis=0),
                "crossings of the path's layer, per step": one.counts[0],
                "crossings of later layers, per step": one.counts[1],
                "crossings of all layers, per length in the path's space": one.counts.sum(axis=0),
                "crossings of all layers, per length in u": one.counts.sum(axis=0) / one.lengths["u"],
                "crossings of all layers, per JS distance of the output": one.counts.sum(axis=0) / one.js,
                "crossings of all layers, per length of the residual": one.counts.sum(axis=0) / one.residual,
                SPEED: one.residual,
            }[row.name]
            for one in made
        ]
        own = np.mean([percentile(v, k) for v, k in zip(values, peaks, strict=True)])
        others = [percentile(values[i], peaks[j]) for i in range(12) for j in range(12) if i // 2 != j // 2]
        assert row.raw.value == pytest.approx(own)
        assert row.other_pairs.value == pytest.approx(np.mean(others))
        assert row.beyond_pairs.value == pytest.approx(own - np.mean(others))
    speed = found.profiles[-1]
    assert speed.beyond_speed is None
    ahead = found.primary.beyond_pairs.value - speed.beyond_pairs.value
    assert found.primary.beyond_speed.value == pytest.approx(ahead)
    assert found.sharpness.value == pytest.approx(np.mean([one.sharpness for one in made]))
    assert found.argmax_changes == 1
    assert found.missed_estimate == pytest.approx(24 / sum(one.counts.sum() for one in made))
    assert found.groups == 6


def test_few_pairs_have_numbers_and_no_verdict():
    result = align([world(follows="js", pairs=29)], range(29))
    assert (result.verdicts, result.outcomes, result.plateaus) == ((None,), ("not testable",), (None,))
    assert "29 of 29 pairs" in result.verdict
    assert AlignmentResult.from_dict(result.to_dict()).verdict == result.verdict


def test_the_verdict_is_that_of_the_sharp_pairs():
    """Pairs that move evenly change what is said of all pairs, not the verdict."""
    sharp, even = world(follows="js", pairs=60), world(follows="nothing", pairs=60, seed=1)
    flat = tuple(replace(one, distance=np.linspace(0, 1, STEPS + 1)) for one in even.profiles)
    mixed = replace(sharp, profiles=(*sharp.profiles, *flat))
    result, alone = align([mixed], range(120)), align([sharp], range(60))
    assert result.sharp == (60,)
    assert replace(result.plateaus[0], left_out=0) == alone.plateaus[0]
    assert result.verdicts == alone.verdicts
    assert result.layers[0].pairs == 120


def test_several_layers_are_corrected_for_their_number():
    one = world(follows="js")
    result = align([one, one, one], range(220))
    assert [verdict.layers for verdict in result.verdicts] == [3, 3, 3]


def test_the_twins_lead_is_paired():
    real, twin = world(follows="js"), world(follows="nothing", seed=1)
    result = align([real], range(220), twins=[twin])
    lead = result.layers[0].primary.beyond_pairs.value - result.twins[0].primary.beyond_pairs.value
    assert result.leads[0].value == pytest.approx(lead)
    assert result.leads[0].low > 0
    same = align([real], range(220), twins=[real])
    assert (same.leads[0].low, same.leads[0].high) == (0, 0)


def test_bad_pairs_and_still_ones_are_left_out_of_both_models():
    real = world(follows="js", pairs=30)
    broken = PairProfiles(real.site, real.settings, (None, *real.profiles[1:]), ())
    result = align([real], range(30), twins=[broken])
    assert result.layers[0].pairs == result.twins[0].pairs == 29
    assert result.layers[0].left_out == 1


def test_the_same_seed_gives_the_same_numbers():
    one = world(follows="js", pairs=30)
    first, again, other = (align([one], range(30), seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_what_does_not_fit_is_refused():
    one = world(follows="js", pairs=30)
    with pytest.raises(PolytopeError, match="1 sets of profiles, 0 of a twin and 29 groups do not fit"):
        align([one], range(29))
    with pytest.raises(PolytopeError, match="resamples = 1000 of 1 units"):
        align([one], [0] * 30)


@pytest.fixture(scope="module")
def small_pairs():
    texts = [sentence.split() for sentence in SENTENCES]
    cut = [" ".join(words[:n]) for words in texts for n in (4, 5, 6)]
    return [Pair(a, b, f"g{i // 2}", same=True) for i, (a, b) in enumerate(zip(cut, cut[1:] + cut[:1], strict=True))]


def test_a_model_from_end_to_end(model, small_pairs, tmp_path):
    told = []
    kept = {"to": tmp_path / "profiles", "resamples": 50}
    result = alignment(model, small_pairs, [0, 1], **kept, progress=lambda *words: told.append(words))
    assert [one.layer for one in result.layers] == [0, 1]
    assert [one.model for one in result.twins] == ["small-gpt2 (untrained, seed 0)"] * 2
    assert result.layers[0].groups == 6
    assert told[0][:2] == (0, 48)
    assert told[-1][:2] == (48, 48)
    files = sorted(path.name for path in (tmp_path / "profiles").glob("*.jsonl"))
    assert files == ["L00.jsonl", "L00.untrained.jsonl", "L01.jsonl", "L01.untrained.jsonl"]
    again = alignment(model, small_pairs, [0, 1], **kept)  # from the files alone
    assert again == result
    assert alignment(model, small_pairs, 1, untrained=False, resamples=50).layers[0] == result.layers[1]


def test_bad_pairs_are_reported_by_line_and_the_rest_runs(model, small_pairs, tmp_path):
    file = write(small_pairs, tmp_path / "pairs.jsonl")
    long = write([Pair("bank " * 99, "river", "g", same=True)], tmp_path / "long.jsonl").read_text()
    file.write_text(f"{file.read_text()}{{}}\n{long}{long.replace('river', '')}")
    result = alignment(model, read(file), [0, 1], resamples=50)
    first = len(small_pairs) + 1
    assert [problem.line for problem in result.problems] == [first, first + 1, first + 2]
    assert "the context 64" in result.problems[1].message
    assert [layer.pairs for layer in result.layers] == [len(small_pairs)] * 2
    assert AlignmentResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert f"Left out: line {first}: " in result._repr_html_()
    page = report.write(tmp_path / "r.html", alignment=result).read_text(encoding="utf-8")
    assert "3 pairs left out: <bdi>line" in page
    assert f'<td class="num">{result.layers[0].sharpness.value:.2f}</td>' in page


def test_results_are_kept_and_shown(model, small_pairs, tmp_path):
    result = alignment(model, small_pairs, 0, resamples=50)
    assert AlignmentResult.load(result.save(tmp_path / "deep" / "result.json")) == result
    text = (tmp_path / "deep" / "result.json").read_text()
    assert not any(pair.a in text for pair in small_pairs)
    assert json.loads(text)["verdict"] == result.verdict
    frame = result.to_frame()
    assert len(frame) == len(result.layers[0].profiles) + len(result.twins[0].profiles)
    assert result.verdict in result._repr_html_()
    figure = result.plot()
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in marks] == [PRIMARY, SPEED, f"{PRIMARY}, untrained", f"{SPEED}, untrained"]
    assert marks[0].x[0] == result.layers[0].primary.beyond_pairs.value
    with pytest.raises(PolytopeError, match=r"nothing\.json"):
        AlignmentResult.load(tmp_path / "nothing.json")


def test_a_model_without_next_tokens_is_refused(tokenizer, small_pairs):
    import transformers as tf

    trunk = plm.wrap(tf.GPT2Model(tf.GPT2Config(n_layer=2, n_embd=24, n_head=2, vocab_size=400)), tokenizer, name="t")
    with pytest.raises(PolytopeError, match="t has no next-token distribution"):
        alignment(trunk, small_pairs, 0)
