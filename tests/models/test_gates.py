"""Codes imposed, flipped and frozen, beside hooks written by hand on the plain transformers module, in every family."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import polytope_lm as plm
from benchmarks.families import FAMILIES
from polytope_lm.codes.soft import probability
from polytope_lm.errors import PolytopeError
from polytope_lm.models.gates import mlp_of, rewriting
from polytope_lm.models.hooks import tapped

IDS = torch.tensor([[3, 14, 15, 9, 26, 5], [8, 9, 7, 9, 3, 2]])
LAYER = 1
TEXT = "The bank of the river was wet, and the bank knew it."
# Plain, ReLU, parallel, flattened before the MLP, post-norm, gated, fused, several streams, encoders.
NAMES = [
    "GPT-2", "GPT-2 with ReLU", "GPT-J", "OPT", "OPT-350m", "Falcon-7b", "Nemotron", "Llama", "Phi-3", "Gemma 3n",
    "OLMo-2", "BERT", "ModernBERT",
]  # fmt: skip


@pytest.fixture(params=NAMES, scope="module")
def family(request: pytest.FixtureRequest) -> tuple:
    family = FAMILIES[request.param]
    hf = family.make()
    return family, hf, plm.wrap(hf, name=request.param)


def out(hf: torch.nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        found = hf(ids)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def by_hand(family: object, hf: torch.nn.Module, change: object) -> torch.Tensor:
    """Run with the output of the map whose sign is the code written by a plain hook."""
    path = family.pre.format(LAYER)
    halves = path.endswith(("gate_up_proj", "Wi"))

    def hook(_module: object, _args: object, h: torch.Tensor) -> torch.Tensor:
        rows = h.reshape(*IDS.shape, -1)
        if halves:
            gate, up = rows.chunk(2, dim=-1)
            return torch.cat([change(gate), up], dim=-1).reshape(h.shape)
        return change(rows).reshape(h.shape)

    handle = hf.get_submodule(path).register_forward_hook(hook)
    try:
        return out(hf)
    finally:
        handle.remove()


def own(model: plm.models.model.Model) -> dict[str, torch.Tensor]:
    """What each of layer 1's points has, read by the library's own taps."""
    found: dict[str, torch.Tensor] = {}
    with model.alone(), tapped(
        model, [(LAYER, point) for point in ("u", "h", "post")], lambda tap, x: found.update({tap[1]: x.clone()})
    ):  # fmt: skip
        out(model.hf)
    return {name: value.reshape(*IDS.shape, -1) for name, value in found.items()}


def test_imposed_codes_are_those_of_a_plain_hook_and_the_own_code_is_the_identity(family: tuple) -> None:
    family, hf, model = family
    clean, bits = out(hf), own(model)["h"] > 0
    with model.imposing({LAYER: bits}):
        assert torch.equal(out(hf), clean)
    other = bits.roll(1, -1)
    with model.imposing({LAYER: other}):
        found = out(hf)
    wanted = by_hand(family, hf, lambda h: h.abs() * (2 * other.float() - 1))
    assert torch.equal(found, wanted)
    assert not torch.equal(found, clean)
    assert torch.equal(out(hf), clean)


def test_flipped_neurons_are_those_of_a_plain_hook(family: tuple) -> None:
    family, hf, model = family
    clean, sign = out(hf), torch.ones(model.block(LAYER).widths["pre" if family.up is None else "gate"])
    sign[[2, 40]] = -1
    with model.flipping({LAYER: [40, 2, 2]}):
        found = out(hf)
    assert torch.equal(found, by_hand(family, hf, lambda h: h * sign))
    at = torch.ones(IDS.shape[1], len(sign))
    at[3, [2, 40]] = -1
    with model.flipping([(LAYER, 2), (LAYER, 40)], positions=3):
        found = out(hf)
    assert torch.equal(found, by_hand(family, hf, lambda h: h * at))
    assert not torch.equal(found, clean)


def test_gates_frozen_at_the_own_soft_code_are_the_secant(family: tuple) -> None:
    family, hf, model = family
    clean, read = out(hf), own(model)
    h = read["h"].numpy()
    # relu2: act(h)/h is no probability.
    soft = np.maximum(h, 0) if family.activation == "relu2" else probability(h, family.activation)
    with model.freezing({LAYER: soft}):
        found = out(hf)
    assert (found - clean).abs().max() <= 1e-5 * clean.abs().max()
    with model.freezing({LAYER: read["h"] > 0}):
        hard = out(hf)
    assert torch.equal(hard, clean) == (family.activation == "relu")


def test_an_mlp_made_of_its_input_is_the_passes_own(family: tuple) -> None:
    _, _, model = family
    read = own(model)
    with torch.no_grad():
        made = mlp_of(model.block(LAYER), read["u"])
    assert torch.allclose(made.h, read["h"], atol=1e-5)
    assert torch.allclose(made.post, read["post"], atol=1e-4)


def test_post_and_the_output_are_written_as_by_a_plain_hook(family: tuple) -> None:
    _, hf, model = family
    down = model.block(LAYER).down

    def hand(written: dict[str, object]) -> torch.Tensor:
        hooks = [
            down.register_forward_pre_hook(lambda _m, args: (written["post"](args[0]), *args[1:])),
            down.register_forward_hook(lambda _m, _a, y: written["out"](y)),
        ]
        try:
            return out(hf)
        finally:
            [hook.remove() for hook in hooks]

    with rewriting(model, [LAYER], lambda layer, mlp: mlp.post / 2 if layer == LAYER else None):
        found = out(hf)
    assert torch.equal(found, hand({"post": lambda post: post / 2, "out": lambda y: y}))
    shift = torch.linspace(-1, 1, own(model)["u"].shape[-1])
    with rewriting(model, [LAYER], None, lambda _layer, _mlp, y: shift.expand(*y.shape[:2], -1)):
        found = out(hf)
    assert torch.equal(found, hand({"post": lambda post: post, "out": lambda y: shift.expand(y.shape).clone()}))


def test_frozen_relu_gates_leave_an_affine_map() -> None:
    model = plm.load("tiny-relu")
    block = model.block(1)
    u = torch.randn(3, 4, model.d_model, generator=torch.Generator().manual_seed(0))
    code = torch.rand(4, model.site(1).width, generator=torch.Generator().manual_seed(1)) > 0.5
    W, b = model.geometry(model.site(1)).weight, model.geometry(model.site(1)).bias
    with model.freezing({1: code}), torch.no_grad():
        # The MLP alone, inside its block's hooks: the block is told the shape by its own input.
        model.hf(torch.tensor([[1, 2, 3, 4]]))
        got = torch.stack([block.module.mlp(row[None])[0] for row in u])
    h = u.numpy() @ W.T + b
    weight, bias = block.down.weight.detach().numpy(), block.down.bias.detach().numpy()
    wanted = (h * code.numpy()) @ weight + bias
    assert got.shape == (3, 4, model.d_model)
    np.testing.assert_allclose(got.detach().numpy(), wanted, atol=1e-4)


def ids_of(model: plm.models.model.Model, text: str = TEXT) -> torch.Tensor:
    return torch.tensor([model.tokenizer(text)["input_ids"]])


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-relu", pytest.param("minilm-l6", marks=pytest.mark.minilm)])
def test_codes_of_encode_stand_at_their_own_positions(name: str) -> None:
    model = plm.load(name)
    ids, codes = ids_of(model), plm.encode(model, TEXT)
    clean = out(model.hf, ids)
    with model.imposing(codes):
        assert torch.equal(out(model.hf, ids), clean)
    first = {0: ~codes.bits(0)[:1]}
    at = int(codes.tokens["position"][0]) + (len(ids[0]) - len(codes)) // 2
    with model.imposing(first, positions=[at]):
        one = plm.encode(model, TEXT)
    assert (one.bits(0)[0] == ~codes.bits(0)[0]).all()
    assert (one.bits(0)[1:] == codes.bits(0)[1:]).all()


def test_both_branches_of_a_gated_model_are_imposed(gated: plm.models.model.Model) -> None:
    ids, codes = ids_of(gated), plm.encode(gated, TEXT, kind="gate+up", layers=[1])
    with gated.imposing(codes):
        same = plm.encode(gated, TEXT, kind="gate+up", layers=[1])
    np.testing.assert_array_equal(same.bits(1), codes.bits(1))
    flipped = {site.layer: ~codes.bits(1) for site in codes.sites}
    other = codes.select(np.arange(len(codes)))
    other.arrays["L01.gate+up"] = np.packbits(flipped[1], axis=1, bitorder="little")
    with gated.imposing(other):
        found = plm.encode(gated, TEXT, kind="gate+up", layers=[1])
    np.testing.assert_array_equal(found.bits(1), ~codes.bits(1))
    with pytest.raises(PolytopeError, match=r"layer 1: codes of the up branch"), gated.freezing(codes):
        out(gated.hf, ids)


def fails_inside(model: plm.models.model.Model, context: object) -> None:
    with context:
        assert not model.hf.training
        assert "intervention" in model.provenance
        raise ZeroDivisionError


def test_an_error_inside_leaves_the_model_as_it_was(gated: plm.models.model.Model) -> None:
    ids = ids_of(gated)
    clean = out(gated.hf, ids)
    gated.hf.train()
    shape = len(ids[0]), gated.site(0).width
    for context in (
        lambda: gated.flipping({0: [1]}),
        lambda: gated.imposing({0: torch.zeros(shape, dtype=torch.bool)}),
        lambda: gated.freezing({0: torch.ones(shape)}),
    ):
        with pytest.raises(ZeroDivisionError):
            fails_inside(gated, context())
        assert gated.hf.training
        assert "intervention" not in gated.provenance
    gated.hf.eval()
    assert torch.equal(out(gated.hf, ids), clean)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in gated.hf.modules())


def test_a_pass_that_goes_on_from_a_cache_is_refused_where_positions_were_given() -> None:
    model = plm.load("tiny-gpt2")
    codes = {1: np.zeros((1, 512), bool)}
    with torch.no_grad():
        alone = out(model.hf)
        for context in (
            model.flipping({1: [0, 5]}, positions=[0]), model.imposing(codes, positions=[0]),
            model.freezing(codes, positions=[0]),
        ):  # fmt: skip
            cache = model.hf(IDS[:1, :3], use_cache=True).past_key_values
            with context, pytest.raises(PolytopeError, match=r"layer 1: this pass goes on from 3 cached tokens"):
                model.hf(IDS[:1, 3:4], past_key_values=cache)
        with model.flipping({1: [0, 5]}):  # everywhere: the same with a cache and without
            whole = out(model.hf, IDS[:1])
            start = model.hf(IDS[:1, :3], use_cache=True)
            rest = model.hf(IDS[:1, 3:], past_key_values=start.past_key_values).logits
            assert torch.allclose(whole[:, 3:], rest, atol=1e-4)
    with model.flipping({1: [0, 5]}, positions=[0]), pytest.raises(PolytopeError, match="cached tokens"):
        plm.change(model, TEXT, "The bank", layer=2)
    assert torch.equal(alone, out(model.hf))


def test_what_frozen_gates_would_hide_is_refused_and_the_other_order_works() -> None:
    model = plm.load("tiny-relu")
    codes = {1: np.ones((6, 512), bool)}
    with (
        model.freezing(codes),
        pytest.raises(PolytopeError, match="layer 1: its gates are frozen"),
        model.flipping({1: [3]}),
    ):
        pass
    with torch.no_grad(), model.flipping({1: [3]}), model.freezing(codes):
        found = model.hf(IDS).logits
    with torch.no_grad(), model.freezing(codes), model.flipping({2: [3]}):  # another layer
        model.hf(IDS)
    with torch.no_grad(), model.freezing(codes):
        assert not torch.allclose(found, model.hf(IDS).logits)


def test_other_threads_wait_until_a_context_ends() -> None:
    model = plm.load("tiny-gpt2")
    clean = plm.encode(model, TEXT).bits(1)
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(plm.encode(model, TEXT).bits(1)))
    with model.flipping({1: list(range(50))}):
        thread.start()
        thread.join(0.5)
        assert not found
        assert (plm.encode(model, TEXT).bits(1) != clean).any()
    thread.join(30)
    np.testing.assert_array_equal(found[0], clean)


def test_a_foreign_hook_is_refused_and_ours_is_not() -> None:
    model = plm.load("tiny-gpt2")
    handle = model.block(0).down.register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(PolytopeError, match="not the model's own"), model.flipping({0: [1]}):
            pass
    finally:
        handle.remove()
    with model.flipping({0: [1]}), model.flipping({0: [1]}):
        np.testing.assert_array_equal(plm.encode(model, TEXT).bits(0), plm.encode(plm.load("tiny-gpt2"), TEXT).bits(0))


BITS = np.zeros((3, 512), bool)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m: m.imposing({9: BITS}), "no layer 9"),
        (lambda m: m.imposing({1: BITS[:, :7]}), r"layer 1: codes of 7 bits"),
        (lambda m: m.imposing({1: BITS.astype(float)}), r"layer 1: .*float64.*bits \(booleans\)"),
        (lambda m: m.imposing({1: BITS[0]}), r"layer 1: codes of shape \[512\]"),
        (lambda m: m.imposing("codes"), "codes = 'codes'"),
        (lambda m: m.imposing({}), "no codes of any layer"),
        (lambda m: m.imposing({1: [["a"]]}), r"layer 1: \[\['a'\]\] are no bits"),
        (lambda m: m.imposing({1: BITS}, positions=[0, 1]), r"layer 1: 3 rows of codes for 2 positions"),
        (lambda m: m.imposing({1: BITS}, positions=[0, 1, 1]), r"\[0, 1, 1\]: one of them is given twice"),
        (lambda m: m.imposing({1: BITS}, positions=[0, -1, 2]), r"positions = \[0, -1, 2\]"),
        (lambda m: m.imposing({1: BITS}), r"layer 1: codes of 3 positions, but this pass has 14"),
        (lambda m: m.imposing({1: BITS}, positions=[0, 1, 99]), r"layer 1: a code for position 99"),
        (lambda m: m.imposing({1: np.zeros((2, 14, 512), bool)}), "layer 1: codes of 2 sequences, a pass of 1"),
        (lambda m: m.imposing(plm.encode(m, [TEXT, TEXT])), "codes of 2 prompts"),
        (lambda m: m.freezing({1: np.full((3, 512), np.nan)}), "layer 1: NaN"),
        (lambda m: m.flipping({1: [512]}), "layer 1: no neuron 512; they are 0 to 511"),
        (lambda m: m.flipping({1: [-1]}), "layer 1: no neuron -1"),
        (lambda m: m.flipping({1: []}), r"layer 1: no neuron \[\]"),
        (lambda m: m.flipping({1: ["a"]}), "layer 1: no neuron a"),
        (lambda m: m.flipping([1, 2]), r"neurons = \[1, 2\]"),
        (lambda m: m.flipping([(1, 2), (3,)]), r"neurons = \[\(1, 2\), \(3,\)\]"),
        (lambda m: m.flipping({}), "no neurons were given"),
        (lambda m: m.flipping({1: [1]}, positions=77), "layer 1: .*position 77"),
    ],
)
def test_bad_input_is_one_line(ask: object, said: str) -> None:
    model = plm.load("tiny-gpt2")
    ids = ids_of(model)[:, :14]
    with pytest.raises(PolytopeError, match=said) as error, ask(model):
        out(model.hf, ids)
    assert "\n" not in str(error.value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())
