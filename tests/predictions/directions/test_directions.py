"""Prediction 3: planted worlds, what is measured, resuming, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm.changes.flips import masses
from polytope_lm.changes.radius import look
from polytope_lm.changes.readout import readout
from polytope_lm.controls.perturbations import equal_norm, equal_output, flips_of_planes
from polytope_lm.controls.planes import rate_matched_planes
from polytope_lm.errors import PolytopeError
from polytope_lm.models.derivatives import Onward
from polytope_lm.predictions.directions import measuring
from polytope_lm.predictions.directions.predicting import correlations, first_question, ranks, wrong_sign
from polytope_lm.statistics.verdict import decide

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    f"The {a} was {b} the {c} and it kept very still" for a in ("cat", "dog", "boat", "sun", "tree")
    for b in ("near", "under", "like", "by", "on") for c in ("river", "old bank")
]  # fmt: skip


def outcome(activation: Any, seed: int) -> str:
    world = plm.worlds.direction_mlp_world(activation, seed=seed)
    cells, _ = first_question(
        world.radius, world.flips, world.planes, world.covariates, world.prompt, seed=seed, resamples=100
    )
    verdict = decide(
        cells, place="World", documents=60, smallest_effect=0.02, premises="", premises_met=True, unit="prompts"
    )
    return verdict.outcome


def test_flips_are_found_where_they_make_the_error_and_not_where_curvature_does() -> None:
    found = {name: [outcome(name, seed) for seed in range(6)] for name in ("relu", "softplus")}
    assert found["relu"].count("supported") == 6
    assert found["softplus"].count("supported") == 0


def test_rank_correlations_are_scipys() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, 60).astype(float)
    b = a + rng.standard_normal(60) * 3
    found = correlations(ranks(a), ranks(b), np.ones((1, 60)))
    assert found[0] == pytest.approx(spearmanr(a, b)[0])
    assert wrong_sign(a, a > 100, {"b": b}, np.arange(60) // 3, seed=0, resamples=20) is None


def test_pushes_are_as_large_as_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((40, 6)) * np.array([9, 1, 1, 1, 1, 0])
    many = np.stack([equal_norm(sample, 2.5, seed=seed) for seed in range(300)])
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 2.5)
    assert np.abs(many[:, 5]).max() < 1e-12
    assert (many[:, 0] ** 2).mean() > 4
    weight = rng.standard_normal((3, 6))
    output = lambda x: np.tanh(weight @ x)  # noqa: E731
    push = equal_output(output, sample[0], many[0], 0.3)
    assert np.linalg.norm(output(sample[0] + push) - output(sample[0])) == pytest.approx(0.3, rel=1e-6)
    with pytest.raises(PolytopeError, match="size = 99"):
        equal_output(output, sample[0], many[0], 99)
    with pytest.raises(PolytopeError, match="length = 0"):
        equal_norm(sample, 0)


def test_flips_of_planes_are_counted_one_by_one() -> None:
    model = plm.load("tiny-gpt2")
    ids = torch.tensor(model.tokenizer("The cat sat on the mat")["input_ids"])
    onward = Onward(model, ids, 2, 3)
    seen = look(onward, readout(model, "logprob"), np.random.default_rng(0).standard_normal((2, 128)), inputs=True)
    u = {n: np.random.default_rng(n).standard_normal((30, 128)) for n in (2, 3)}
    planes = rate_matched_planes(u, {n: u[n][:, :1] + np.zeros(512) > 0 for n in (2, 3)}, draws=2, seed=0)
    steps = torch.tensor([[0.3, 2.0, 40.0], [0.1, 5.0, 90.0]], dtype=torch.float64)
    found = masses(seen.layers, steps, flips_of_planes(planes, 1, seen.layers, 2, steps)).flips
    for row in range(2):
        for column in range(3):
            count = 0
            for n, layer in enumerate(seen.layers):
                normals, heights = planes.normals[2 + n][512:], planes.thresholds[2 + n][512:]
                assert layer.u is not None
                assert layer.du is not None
                before = layer.u.numpy() @ normals.T > heights
                after = (layer.u + steps[row, column] * layer.du[row]).numpy() @ normals.T > heights
                count += int((before != after).sum())
            assert int(found[row, column]) == count


def test_scaling_and_both_pushes_are_what_plain_hooks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model = plm.load("tiny-gpt2")
    direction = np.random.default_rng(5).standard_normal(128)
    direction /= np.linalg.norm(direction)
    monkeypatch.setattr(measuring, "equal_norm", lambda _sample, length, **_: length * direction)
    ids = [np.array(model.tokenizer(text)["input_ids"]) for text in TEXTS[:3]]
    layer, number = 2, 1
    read = measuring.read_prompts(model, ids, [layer], draws=0, seed=0)
    rows = measuring.measure(model, read, layer, number, 0.1, 0)["scaling"]
    block = model.hf.transformer.h[layer]
    inputs: list[torch.Tensor] = []

    @torch.no_grad()
    def logits(change: Any) -> torch.Tensor:
        def hook(_module: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            u = args[0].clone()
            u[0, -1] = change(u[0, -1])
            inputs.append(u[0, -1])
            return (u,)

        handle = block.mlp.register_forward_pre_hook(hook)
        try:
            out: torch.Tensor = model.hf(torch.tensor(ids[number])[None]).logits[0, -1].double().log_softmax(-1)
        finally:
            handle.remove()
        return out

    clean = logits(lambda u: u)
    u, push = inputs[0], torch.as_tensor(direction, dtype=torch.float32)

    @torch.no_grad()
    def moved(delta: torch.Tensor) -> torch.Tensor:
        return (block.mlp(u + delta) - block.mlp(u)).norm(dim=-1)

    def kl(delta: torch.Tensor) -> float:
        changed = logits(lambda at: at + delta)
        return float((clean.exp() * (clean - changed)).sum())

    assert {row["what"] for row in rows} == {"u", "post"}
    mine = [row for row in rows if row["what"] == "u"]
    assert {row["push"] for row in mine} == {measuring.AS_LONG, measuring.AS_MUCH}
    grid = torch.linspace(0, 4 * float(u.norm()), 20001)
    for row in mine:
        scaled = (row["factor"] - 1) * u
        length = float(scaled.norm())
        if row["push"] == measuring.AS_MUCH:
            length = float(grid[(moved(grid[:, None] * push) >= moved(scaled)).nonzero()[0, 0]])
        assert row["scaled"] == pytest.approx(kl(scaled), rel=1e-3, abs=1e-6)
        assert row["pushed"] == pytest.approx(kl(length * push), rel=1e-2, abs=1e-5)
        flips = int(((block.mlp.c_fc(u + length * push) > 0) != (block.mlp.c_fc(u) > 0)).sum())
        assert abs(row["pushed flips"] - flips) <= 1


@pytest.fixture(scope="module")
def relu() -> Any:
    return plm.predictions.directions(plm.load("tiny-relu"), TEXTS, [2], prompts=24, tokens=9, draws=1, resamples=40)


def test_behind_relus_all_of_the_error_is_in_flipped_neurons(relu: Any) -> None:
    share = relu.layers[0].finding("share of the MLP's first-order error in flipped")
    assert share.value == pytest.approx(1, abs=1e-4)
    assert relu.layers[0].finding("share of the MLP's first-order error in neurons that random").value < 0.5
    assert relu.layers[0].verdict.premises_met
    assert "layer 2" in relu.verdict


def test_every_question_has_its_numbers(relu: Any, tmp_path: Path) -> None:
    table = relu.to_frame()
    assert set(table["question"]) == {"predict", "share", "regions", "scaling"}
    assert relu.layers[0].regions is not None
    for push in (measuring.AS_LONG, measuring.AS_MUCH):
        assert table["what"].str.startswith(f"log10 KL of a push {push} over that of u scaled").any()
    assert relu.layers[0].finding("rank correlation of the first boundary").high <= 1
    assert relu.layers[0].triples + sum(relu.layers[0].censored.values()) == len(relu.numbers) == 72
    relu.save(tmp_path)
    again = plm.load_result(tmp_path)
    assert again.verdict == relu.verdict
    assert again.numbers is not None
    assert len(again.numbers) == 72
    with pytest.raises(PolytopeError, match="no layer 1 here; there are 2"):
        relu.layer(1)


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    model = plm.load("tiny-gpt2")
    kept = tmp_path / "kept.jsonl"
    asked: dict[str, Any] = {"prompts": 20, "tokens": 8, "draws": 0, "resamples": 20}

    class Stop(Exception):  # noqa: N818
        pass

    def stop(done: int, _total: int, _what: str) -> None:
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        plm.predictions.directions(model, TEXTS, [3], keep=kept, progress=stop, **asked)
    told: list[int] = []
    found = plm.predictions.directions(
        model, TEXTS, [3], keep=kept, progress=lambda done, *_: told.append(done), **asked
    )
    assert told[0] >= 4
    fresh = plm.predictions.directions(model, TEXTS, [3], **asked, controls=["untrained"])
    table = fresh.to_frame()
    other = table["what"].str.startswith("untrained weights")
    assert other.sum() >= 6
    assert found.to_frame().equals(table[~other].reset_index(drop=True))
    with pytest.raises(PolytopeError, match="tau"):
        plm.predictions.directions(model, TEXTS, [3], keep=kept, **asked, tau=0.2)
    with pytest.raises(PolytopeError, match="texts"):  # as many of them, but others
        plm.predictions.directions(model, TEXTS[::-1], [3], keep=kept, **asked)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tau": 1}, "tau = 1"),
        ({"prompts": 3}, "prompts = 3"),
        ({"tokens": 2}, "tokens = 2"),
        ({"source": TEXTS[:7]}, "7 documents with 8 tokens"),
        ({"layers": [9]}, "no layer 9"),
        ({"layers": "x"}, "layers = 'x'"),
        ({"model": "tiny-gpt2"}, "model = 'tiny-gpt2'"),
        ({"controls": ["shuffled"]}, "no control 'shuffled'"),
        ({"controls": "shuffled"}, "no control 'shuffled'"),
        ({"draws": "x"}, "draws = 'x'"),
        ({"resamples": 0}, "resamples = 0"),
        ({"smallest_effect": -1}, "smallest_effect = -1"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"source": TEXTS, "layers": [1], "prompts": 20, "tokens": 8} | change
    with pytest.raises(PolytopeError, match=said):
        plm.predictions.directions(**({"model": plm.load("tiny-gpt2")} | given))
