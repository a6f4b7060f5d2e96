"""Estimates beside the truth: attribution patching, a secant by hand, an integral that covers its error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm.changes.secant import secant_gradient
from polytope_lm.errors import PolytopeError
from polytope_lm.models.derivatives import Onward

A, B = "The cat sat on the", "The dog lay in the"


@pytest.fixture(scope="module")
def tiny() -> plm.models.model.Model:
    return plm.load("tiny-gpt2")


def test_truth_and_first_order_are_those_of_transformer_lens(tiny: plm.models.model.Model) -> None:
    a, b = (torch.tensor([tiny.tokenizer(text)["input_ids"]]) for text in (A, B))
    found = plm.change(tiny, A, B, layer=[1, 2], position="all", at="mlp_in", most=16)
    bridge = tiny.bridge
    token = int(bridge(a)[0, -1].argmax())
    name = "blocks.{}.ln2.hook_out"

    def m(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1].log_softmax(-1)[token]

    clean = float(m(bridge(a)))
    with torch.no_grad():
        _, cache = bridge.run_with_cache(b)
    for one in found.changes:
        there, grads, own = name.format(one.layer), [], []

        def read(value: torch.Tensor, hook: object, own: list[torch.Tensor] = own) -> None:
            own.append(value)
            value.retain_grad()

        m(bridge.run_with_hooks(a, fwd_hooks=[(there, read)])).backward()
        grads.append(own[0].grad[0, one.position])
        delta = cache[there][0, one.position] - own[0][0, one.position].detach()

        def patch(value: torch.Tensor, hook: object, one: object = one, there: str = there) -> torch.Tensor:
            changed = value.clone()
            changed[0, one.position] = cache[there][0, one.position]  # type: ignore[attr-defined]
            return changed

        with torch.no_grad():
            patched = float(m(bridge.run_with_hooks(a, fwd_hooks=[(there, patch)])))
        assert one.true == pytest.approx(patched - clean, abs=2e-4)
        assert one.estimate("first order").value == pytest.approx(float(grads[0] @ delta), abs=2e-3)
    assert {one.position for one in found.changes} == {1, 2, 3, 4, 5, 6}


def test_integrated_gradients_are_the_truth_within_what_they_say(tiny: plm.models.model.Model) -> None:
    found = plm.change(tiny, A, B, layer=[0, 1, 2], position=-1)
    for one in found.changes:
        integral = one.estimate("integrated gradients")
        assert integral.error is not None
        assert abs(integral.off) <= integral.error + 1e-4
        assert integral.forwards == integral.backwards > 4


def test_curvature_corrects_a_small_step(tiny: plm.models.model.Model) -> None:
    one = plm.change(tiny, A, B, layer=1, size=0.1, most=8).changes[0]
    assert abs(one.estimate("with curvature").off) < 0.2 * abs(one.estimate("first order").off)


def test_the_secant_is_the_model_with_its_coefficients_held() -> None:
    model = plm.load("tiny-gpt2", dtype="float64")
    ids = torch.tensor(model.tokenizer(A)["input_ids"])
    layer = model.n_layers - 1
    onward = Onward(model, ids, layer)
    of = lambda out: out[:, 11] - out[:, 30]  # noqa: E731
    mine, held = secant_gradient(onward, of)
    block, final = model.hf.transformer.h[layer], model.hf.transformer.ln_f
    x = onward.x

    def held_norm(norm: torch.nn.LayerNorm, at: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        sigma = ((at - at.mean()).square().mean() + norm.eps).sqrt()
        return (of - of.mean()) / sigma * norm.weight + norm.bias

    h0 = block.mlp.c_fc(block.ln_2(x))
    p = block.mlp.act(h0) / h0
    after = x + block.mlp.c_proj(block.mlp.act(h0))

    def line(at: torch.Tensor) -> torch.Tensor:
        h = block.mlp.c_fc(held_norm(block.ln_2, x, at))
        out = at + block.mlp.c_proj(p * h)
        logits = model.hf.lm_head(held_norm(final, after, out))
        return logits[11] - logits[30]

    theirs = torch.autograd.functional.jacobian(line, x.clone())
    torch.testing.assert_close(mine, theirs.detach(), rtol=1e-8, atol=1e-10)
    assert float(line(x)) == pytest.approx(float(of(onward.clean().out)), rel=1e-8)
    assert (held.codes, held.norms) == (1, 2 + 0 * layer) or held.norms >= 2


def test_a_gated_models_product_is_shared_by_halves(gated: plm.models.model.Model) -> None:
    onward = Onward(gated, torch.tensor([5, 17, 3, 44]), 1, at="mlp_in", read="mlp_out")
    of = lambda out: out[:, 3]  # noqa: E731
    mine, _ = secant_gradient(onward, of)
    mlp, u = gated.hf.model.layers[1].mlp, onward.x
    g, up = mlp.gate_proj(u), mlp.up_proj(u)
    act = torch.nn.functional.silu(g)
    per = (act / g * up / 2)[:, None] * mlp.gate_proj.weight + (act / 2)[:, None] * mlp.up_proj.weight
    torch.testing.assert_close(mine, (mlp.down_proj.weight[3] @ per).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine @ u, mlp(u[None])[0, 3].detach(), rtol=1e-4, atol=1e-6)


def test_positions_may_come_from_an_array(tiny: plm.models.model.Model) -> None:
    found = plm.change(tiny, A, B, layer=1, position=np.array([-2, -1]), most=4)
    assert [one.position for one in found.changes] == [5, 6]


def test_it_takes_a_bridge(tiny: plm.models.model.Model) -> None:
    bridged = plm.wrap(tiny.bridge, tiny.tokenizer, name="bridged")
    theirs, mine = (plm.change(model, A, B, layer=1, most=8).changes[0] for model in (bridged, tiny))
    assert theirs.true == pytest.approx(mine.true, abs=2e-4)
    for one in mine.estimates:
        assert theirs.estimate(one.name).value == pytest.approx(one.value, rel=2e-2, abs=2e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 0}, "size = 0: a step of 0"),
        ({"size": float("nan")}, "size = nan"),
        ({"b_or_delta": np.zeros(128)}, "is zero"),
        ({"b_or_delta": np.ones(3)}, r"shape \(3,\), expected \[128\]"),
        ({"b_or_delta": np.full(128, np.inf)}, "is inf at 0"),
        ({"b_or_delta": A}, "is zero"),
        ({"b_or_delta": B + " old", "position": "all"}, "prompts of 7 and 10 tokens"),
        ({"readout": "kl"}, "'kl' has no gradient"),
        ({"readout": (" the cat", " a")}, "' the cat' is . tokens"),
        ({"b_or_delta": B + " old", "position": 0}, "counted from the end of both, need equally long prompts"),
        ({"b_or_delta": "The dog", "position": -5}, "counted from the end of both, need equally long prompts"),
        ({"position": "last"}, "position = 'last'"),
        ({"position": 1.5}, "position = 1.5"),
        ({"position": None}, "position = None"),
        ({"position": []}, r"position = \[\]"),
        ({"a": [A, A]}, "prompt A is a list"),
        ({"layer": 1.5}, "no layer 1.5"),
        ({"layer": 9}, "no layer 9"),
        ({"most": 12}, "most = 12"),
        ({"most": 8.0}, "most = 8.0"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tiny: plm.models.model.Model, change: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"a": A, "b_or_delta": B, "layer": 1} | change
    with pytest.raises(PolytopeError, match=said):
        plm.change(tiny, **given)
