"""Derivatives through the trunk: against double precision differences, a second way, and a plain hook."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.derivatives import Onward
from polytope_lm.models.gates import activation

if TYPE_CHECKING:
    from collections.abc import Callable

EXACT: dict[str, float] = {"rtol": 1e-8, "atol": 1e-11}
ROUNDED: dict[str, float] = {"rtol": 1e-3, "atol": 1e-6}  # Llama's norm computes in single precision
IDS = torch.tensor([5, 17, 3, 44, 9, 21, 8])


def read(out: torch.Tensor) -> torch.Tensor:
    """Return a number with third derivatives."""
    return out.log_softmax(-1)[:, 7]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def exact(request: pytest.FixtureRequest) -> plm.models.model.Model:
    """A small model in double precision, plain or gated."""
    made = request.getfixturevalue(request.param)()
    return plm.wrap(made.double(), request.getfixturevalue("tokenizer"))


def by_hook(model: plm.models.model.Model, layer: int, position: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the number as a function of what the MLP's norm reads, by a hook of the plain model alone."""
    block = model.hf.transformer.h[layer] if hasattr(model.hf, "transformer") else model.hf.model.layers[layer]
    norm = block.ln_2 if hasattr(block, "ln_2") else block.post_attention_layernorm

    def of(x: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []

        def replace(_m: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            rows = list(args[0][0])
            kept.append(x - rows[position])
            rows[position] = x
            return (torch.stack(rows)[None],)

        def carry(_m: object, _a: object, out: object) -> object:
            stream = out[0] if isinstance(out, tuple) else out
            added = torch.zeros_like(stream)
            added[0, position] = 1
            new = stream + added * kept[0]
            return (new, *out[1:]) if isinstance(out, tuple) else new

        handles = [norm.register_forward_pre_hook(replace), block.register_forward_hook(carry)]
        try:
            model.hf.config._attn_implementation, was = "eager", model.hf.config._attn_implementation
            return read(model.hf(IDS[None]).logits[:, -1])[0]
        finally:
            model.hf.config._attn_implementation = was
            for handle in handles:
                handle.remove()

    return of


@pytest.mark.parametrize("position", [2, -1])
def test_first_and_second_derivatives_are_those_of_a_plain_hook(exact: plm.models.model.Model, position: int) -> None:
    onward, layer = Onward(exact, IDS, 1, position), 1
    v = torch.randn(2, exact.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    of, x = by_hook(exact, layer, position % len(IDS)), onward.x.clone()
    g = torch.autograd.functional.jacobian(of, x)
    h = torch.autograd.functional.hessian(of, x)
    mine, ran, _ = onward.gradient(read)
    close = ROUNDED if "gate" in exact.block(0).pre else EXACT
    torch.testing.assert_close(mine[0], g, **close)
    torch.testing.assert_close(read(ran.out)[0], of(x).detach(), **close)
    first, product = onward.hvp(read, v)
    torch.testing.assert_close(product, v @ h, **close)
    torch.testing.assert_close(first[0], g, **close)


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in", "embed"])
def test_forward_mode_backward_mode_and_differences_agree(exact: plm.models.model.Model, at: str) -> None:
    onward = Onward(exact, IDS, 0 if at == "embed" else 1, 2, at, 5)
    v = torch.randn(3, exact.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    taps = [(1, "post"), (1, "h")]
    base, moved = onward.jvp(v, taps)
    gated = "gate" in exact.block(0).pre
    e, close = (3e-3, {"rtol": 2e-2, "atol": 2e-3}) if gated else (1e-5, {"rtol": 1e-5, "atol": 1e-8})
    up, down = onward.run(onward.x + e * v, taps), onward.run(onward.x - e * v, taps)
    torch.testing.assert_close(moved.out, (up.out - down.out) / (2 * e), **close)
    for tap in taps:
        torch.testing.assert_close(moved.taps[tap], (up.taps[tap] - down.taps[tap]) / (2 * e), **close)
    z = base.out[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(read(z).sum(), z)
    g, _, _ = onward.gradient(read)
    torch.testing.assert_close(v @ g[0], moved.out @ slope[0], **(ROUNDED if gated else EXACT))
    ends = [onward.gradient(read, onward.x + sign * e * v)[0] for sign in (1, -1)]
    torch.testing.assert_close(onward.hvp(read, v)[1], (ends[0] - ends[1]) / (2 * e), **close)


def test_gradients_at_taps_are_what_a_change_there_does(exact: plm.models.model.Model) -> None:
    onward = Onward(exact, IDS, 0, 3)
    _, _, worth = onward.gradient(read, taps=[(1, "post")])
    block = exact.block(1)
    pushed = torch.zeros_like(worth[1, "post"][0])
    pushed[1, 5] = 1e-6  # the second position from the place on

    def push(_m: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (args[0] + torch.nn.functional.pad(pushed, (0, 0, len(IDS) - len(pushed), 0)),)

    with torch.no_grad():
        clean = read(exact.hf(IDS[None]).logits[:, -1])
        handle = block.down.register_forward_pre_hook(push)
        changed = read(exact.hf(IDS[None]).logits[:, -1])
        handle.remove()
    assert float((changed - clean) / 1e-6) == pytest.approx(float(worth[1, "post"][0, 1, 5]), rel=1e-3)


def test_an_mlps_own_output_ends_the_pass(exact: plm.models.model.Model) -> None:
    onward = Onward(exact, IDS, 0, 3, "mlp_in", read="mlp_out")
    with torch.no_grad():
        mlp = exact.hf.transformer.h[0].mlp if hasattr(exact.hf, "transformer") else exact.hf.model.layers[0].mlp
        own = mlp(onward.x[None])
    torch.testing.assert_close(onward.clean().out, own)
    later: list[object] = []
    handle = exact.block(1).down.register_forward_hook(lambda *_: later.append(1))
    try:
        with pytest.raises(PolytopeError, match="hook that is not the model's own"):
            onward.run(onward.x[None])
    finally:
        handle.remove()
    assert not later


def test_weights_and_hooks_are_left_as_they_were(model: plm.models.model.Model) -> None:
    asked = [weight.requires_grad for weight in model.hf.parameters()]
    onward = Onward(model, IDS, 1, 2)
    with pytest.raises(RuntimeError, match="stop"):
        onward.gradient(lambda _: (_ for _ in ()).throw(RuntimeError("stop")))
    onward.hvp(read, onward.x[None])
    assert [weight.requires_grad for weight in model.hf.parameters()] == asked
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())
    assert all(weight.grad is None for weight in model.hf.parameters())


def test_wrong_places_are_told_in_a_line(model: plm.models.model.Model) -> None:
    with pytest.raises(PolytopeError, match="no layer 9; it has 3"):
        Onward(model, IDS, 9)
    with pytest.raises(PolytopeError, match="position = 7 is outside the prompt of 7"):
        Onward(model, IDS, 1, 7)
    with pytest.raises(PolytopeError, match="position = 5 comes after the position that is read, 2"):
        Onward(model, IDS, 1, 5, read_at=2)
    with pytest.raises(PolytopeError, match="activation 'sine'"):
        activation(replace(plm.load("tiny-gpt2").block(0), activation="sine"))


def test_a_bridge_is_read_as_everything_else(model: plm.models.model.Model) -> None:
    bridged = plm.wrap(model.bridge, model.tokenizer, name="bridged")
    theirs, mine = Onward(bridged, IDS, 1, 3), Onward(model, IDS, 1, 3)
    torch.testing.assert_close(theirs.gradient(read)[0], mine.gradient(read)[0], rtol=1e-3, atol=1e-6)
    v = torch.ones(1, model.d_model)
    torch.testing.assert_close(theirs.hvp(read, v)[1], mine.hvp(read, v)[1], rtol=1e-3, atol=1e-5)
