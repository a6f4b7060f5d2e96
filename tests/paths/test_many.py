"""Many pairs at once: the same as one by one, whatever a run's end was, and without the bad ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.interventions import run_patched
from polytope_lm.paths import many as batch
from polytope_lm.paths.many import crossings_of_pairs
from polytope_lm.paths.profile import PairProfiles, Profile, sharpness
from polytope_lm.paths.solve.line import mlp_inputs
from polytope_lm.paths.trace import profile

WORDS = ["bank", "river", "money", "pond", "ducks", "boat", "water"]
PAIRS = [(f"He sat on the {a}", f"A new {b} is wet") for a, b in pairwise(WORDS)]


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """A run is stopped inside chunks as well as between them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "CHUNK", 2)
        yield


@dataclass
class Named:
    prompts: tuple
    line: int


def test_targets_are_where_a_pair_cuts_its_prompts(model):
    from polytope_lm.pairs import Pair

    whole = Pair(f"{PAIRS[0][0]} of the river", PAIRS[0][1], "g", True, target_a=(14, 18))
    cut, plain = (crossings_of_pairs(model, [pair], 0) for pair in (whole, PAIRS[0]))
    assert cut.profiles[0].to_dict() == plain.profiles[0].to_dict()
    assert cut.settings == plain.settings


def js_by_scipy(p):
    return [jensenshannon(*q, base=2) for q in pairwise(p)]


def softmax(logits):
    e = np.exp(logits.astype(float) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("case", ["resid_mid line", "resid_mid arc", "mlp_in line", "mlp_in arc", "embed line"])
@pytest.mark.parametrize("name", ["model", "gated"])
def test_each_pair_has_the_crossings_of_its_own_path(name, case, request):
    model = request.getfixturevalue(name)
    at, shape = case.split()
    layer = None if at == "embed" else 0
    found = crossings_of_pairs(model, PAIRS, layer, at=at, shape=shape)
    for (a, b), one in zip(PAIRS, found.profiles, strict=True):
        alone = plm.path(model, a, b, layer=layer, at=at, shape=shape).crossings(downstream=True)
        assert one.layers.tolist() == [part.layer for part in alone.layers]
        edges = np.linspace(0, 1, one.steps + 1)
        for row, part in enumerate(alone.layers):
            here = alone.layer == part.layer
            # A batch's float32 ends differ in rounding: a crossing may fall to the other side of an edge.
            assert np.abs(one.counts[row] - np.histogram(alone.t[here], edges)[0]).sum() <= 2
            assert one.crossings[row] == here.sum() == one.counts[row].sum()
            assert one.on[row] == alone.on[here].sum()
            assert one.hamming[row] == part.hamming
            assert one.returning[row] == (alone.returns & here).sum()
        np.testing.assert_allclose(one.js, alone.output_change.js, atol=2e-3)
        np.testing.assert_allclose(one.length, alone.length, rtol=1e-5)


def test_the_output_is_the_models_own_along_the_path(model):
    """Residuals, JS distances (by scipy) and likeliest tokens against forwards at each step's end."""
    path = plm.path(model, *PAIRS[0], layer=0)
    one = profile(path, lens=True)
    taps = [(layer, "resid_post") for layer in range(3)]
    run = run_patched(
        model, path.input_ids, path.points(np.linspace(0, 1, 34)), layer=0, position=path.position, taps=taps
    )
    last = run.activations[2, "resid_post"].astype(float)
    np.testing.assert_allclose(one.residual, np.linalg.norm(np.diff(last, axis=0), axis=1), atol=2e-3)
    np.testing.assert_allclose(one.distance, np.linalg.norm(last - last[0], axis=1), atol=2e-3)
    p = softmax(run.logits)
    np.testing.assert_allclose(one.js, js_by_scipy(p), atol=1e-3)
    assert one.top.tolist() == p.argmax(1).tolist()
    assert one.js_error < 1e-3
    assert one.lens.shape == (3, 33)
    np.testing.assert_allclose(one.lens[-1], one.js)
    head = model.hf.lm_head(model.hf.transformer.ln_f(torch_rows(run.activations[0, "resid_post"])))
    p = softmax(head.detach().numpy())
    np.testing.assert_allclose(one.lens[0], js_by_scipy(p), atol=1e-3)


def torch_rows(values):
    import torch

    return torch.as_tensor(values)


def test_densities_name_their_length(model):
    path = plm.path(model, *PAIRS[0], layer=1)
    one = profile(path)
    points = path.points(np.linspace(0, 1, 34))
    counts = one.counts.sum(axis=0)
    np.testing.assert_allclose(one.density(per="step"), counts * 33)
    np.testing.assert_allclose(one.density(per="path"), counts / (path.length / 33))
    rows = torch_rows(points).float()
    u = model.block(1).norm(rows).detach().numpy()
    np.testing.assert_allclose(mlp_inputs(model.geometry(path.site), points), u, atol=1e-4)
    chords = np.linalg.norm(np.diff(u.astype(float), axis=0), axis=1)
    np.testing.assert_allclose(one.density("own", "u"), one.counts[0] / chords, rtol=1e-3)
    np.testing.assert_allclose(one.density("later", "output"), one.counts[1:].sum(axis=0) / one.js)
    np.testing.assert_allclose(one.density("own") + one.density("later"), one.density("all"))
    with pytest.raises(PolytopeError, match="per='miles' is no length of this path; there are: step, p"):
        one.density(per="miles")
    with pytest.raises(PolytopeError, match="layers='some'"):
        one.density("some")


def test_equal_prompts_have_no_density_and_no_sharpness(model):
    one = profile(plm.path(model, PAIRS[0][0], PAIRS[0][0], layer=0))
    assert one.counts.sum() == 0
    assert (one.density(per="path") == 0).all()
    assert np.isnan(one.sharpness)


def test_sharpness_is_one_for_a_line_and_the_number_of_steps_for_a_jump():
    assert sharpness(np.linspace(0, 3, 11)) == pytest.approx(1)
    assert sharpness(np.array([0.0] * 6 + [2.0] * 5)) == pytest.approx(10)
    t = np.linspace(0, 1, 100_001)
    assert sharpness(t**2) == pytest.approx(2, abs=1e-4)
    with pytest.raises(PolytopeError, match=r"at least 2 points and d\(1\) > 0"):
        sharpness(np.zeros(4))


def test_a_bad_pair_is_reported_and_the_rest_runs(model):
    long = "bank " * 200
    pairs = [Named(PAIRS[0], 7), Named(("", "x"), 9), Named(PAIRS[1], 12), (long, "x"), ("only", 3), 5]
    found = crossings_of_pairs(model, pairs, 0)
    assert [bad.pair for bad in found.bad] == [1, 3, 4, 5]
    assert [bad.line for bad in found.bad] == [9, 4, 5, 6]
    assert "prompt A is empty" in str(found.bad[0])
    assert "tokens, the context 64: shorten it" in found.bad[1].message
    assert long not in str(found.to_dict())
    assert [number for number, _ in found.good] == [0, 2]
    alone = crossings_of_pairs(model, [PAIRS[0], PAIRS[1]], 0)
    assert found.profiles[2].crossings.tolist() == alone.profiles[1].crossings.tolist()


@pytest.mark.usefixtures("users_arrays")
def test_nan_along_one_path_is_that_pairs_mistake(model, monkeypatch):
    real = batch.read_ends

    def broken(job, ends):
        rows = real(job, ends)
        return [row * np.nan if end.ids[-1] == ends[0].ids[-1] else row for row, end in zip(rows, ends, strict=True)]

    monkeypatch.setattr(batch, "read_ends", broken)
    found = crossings_of_pairs(model, PAIRS, 0, downstream=False)
    assert 0 < len(found.bad) < len(PAIRS)
    assert "resid_mid of layer 0 has NaN or infinite values" in found.bad[0].message


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    target = tmp_path_factory.mktemp("pairs") / "whole.jsonl"
    pairs = [*PAIRS[:3], ("", "x"), *PAIRS[3:5]]
    return pairs, crossings_of_pairs(model, pairs, 1, to=target), target.read_bytes()


@settings(max_examples=12)
@given(share=st.floats(0, 1))
def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_bytes(finished, model, tmp_path_factory, share):
    pairs, _, whole = finished
    target = tmp_path_factory.mktemp("cut") / "pairs.jsonl"
    target.write_bytes(whole[: int(share * len(whole))])
    crossings_of_pairs(model, pairs, 1, to=target)
    assert target.read_bytes() == whole


def test_a_run_that_stops_leaves_what_it_had(finished, model, tmp_path):
    pairs, _, whole = finished
    target = tmp_path / "pairs.jsonl"

    def stop(done, _total, _words):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crossings_of_pairs(model, pairs, 1, to=target, progress=stop)
    assert whole.startswith(target.read_bytes())
    assert len(target.read_bytes().splitlines()) == 4
    with pytest.raises(PolytopeError, match="has 3 of 6 pairs: run what wrote it again"):
        PairProfiles.load(target)
    told = []
    crossings_of_pairs(model, pairs, 1, to=target, progress=lambda *words: told.append(words))
    assert target.read_bytes() == whole
    assert told[0][:2] == (3, 6)
    assert "at most 40 evaluations of 2 layers each" in told[0][2]


def test_results_load_as_they_were(finished, tmp_path):
    _, found, whole = finished
    (tmp_path / "pairs.jsonl").write_bytes(whole)
    again = PairProfiles.load(tmp_path / "pairs.jsonl")
    assert again.to_dict() == found.to_dict() == PairProfiles.from_dict(found.to_dict()).to_dict()
    assert again.bad == found.bad
    assert found.save(tmp_path / "other.jsonl").read_bytes() == whole
    assert again.to_frame().equals(found.to_frame())
    assert Profile.from_dict(json.loads(json.dumps(found.profiles[0].to_dict()))).counts.dtype == np.int64
    assert "PairProfiles: 6 pairs, 1 of them bad" in repr(again)


@pytest.mark.usefixtures("users_arrays")
def test_finished_files_of_the_former_format_load(finished, tmp_path):
    _, found, whole = finished
    former = tmp_path / "former.jsonl"
    lines = [json.loads(line) for line in whole.splitlines()]
    lines[0]["format"] = 1
    former.write_text("".join(json.dumps({k: v for k, v in one.items() if k != "sum"}) + "\n" for one in lines))
    again = PairProfiles.load(former)
    assert again.bad == found.bad
    assert again.to_frame().equals(found.to_frame())
    former.write_text(former.read_text().replace('"hamming"', '"hammink"'))
    with pytest.raises(PolytopeError, match=r"former\.jsonl. holds no profiles of pairs \(KeyError"):
        PairProfiles.load(former)


@pytest.mark.parametrize("change", [{"evaluations": 72}, {"shape": "arc"}, {"pairs": PAIRS}, {"layer": 0}])
def test_another_runs_file_is_refused(finished, model, tmp_path, change):
    pairs, _, whole = finished
    target = tmp_path / "pairs.jsonl"
    target.write_bytes(whole)
    asked = {"pairs": pairs, "layer": 1} | change
    with pytest.raises(PolytopeError, match="holds another run's pairs"):
        crossings_of_pairs(model, **asked, to=target)
    assert target.read_bytes() == whole


@pytest.mark.parametrize("content", [b"\n", b"hello\n", b'{"format": 9}\n', b"[]\n"])
def test_a_file_of_something_else_is_left_alone(model, tmp_path, content):
    target = tmp_path / "notes.txt"
    target.write_bytes(content)
    with pytest.raises(PolytopeError, match=r"notes\.txt. holds no pairs"):
        crossings_of_pairs(model, PAIRS, 0, to=target)
    assert target.read_bytes() == content


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 9}, "no layer 9"),
        ({"layer": 0, "at": "nowhere"}, "at='nowhere' is not a space"),
        ({"layer": 0, "shape": "knot"}, "shape='knot' is not a shape"),
        ({"layer": 0, "evaluations": 5}, "evaluations=5"),
        ({"layer": 0, "steps": 0}, "steps=0"),
        ({"layer": 0, "workers": 0}, "workers=0"),
        ({"layer": 0, "pairs": []}, "no pair"),
        ({"at": "embed", "downstream": False}, "at='embed' has lines, followed downstream"),
    ],
)
def test_what_no_pair_could_change_is_refused_at_once(model, options, message):
    with pytest.raises(PolytopeError, match=message):
        crossings_of_pairs(model, **({"pairs": PAIRS} | options))


def test_an_encoder_has_its_own_layer_only(tokenizer):
    import transformers as tf
    from small import randomised

    config = tf.BertConfig(
        hidden_size=24, intermediate_size=44, num_hidden_layers=2, num_attention_heads=2, vocab_size=400
    )
    bert = plm.wrap(randomised(tf.BertModel(config)), tokenizer, name="small-bert")
    with pytest.raises(PolytopeError, match="small-bert reads both ways"):
        crossings_of_pairs(bert, PAIRS, 0)
    found = crossings_of_pairs(bert, [*PAIRS, (SENTENCES[0], PAIRS[0][1])], 0, downstream=False)
    for (a, b), one in zip([*PAIRS, (SENTENCES[0], PAIRS[0][1])], found.profiles, strict=True):
        assert one.crossings[0] == len(plm.path(bert, a, b, layer=0).crossings())
        assert len(one.js) == 0
