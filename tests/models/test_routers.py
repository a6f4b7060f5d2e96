"""Routers of mixtures of experts: their codes are what their own calls chose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf

import polytope_lm as plm
from benchmarks.families import FAMILIES
from polytope_lm.codes.overview import overview

MIXTURES = [name for name, family in FAMILIES.items() if family.router]
SMALL = {
    "vocab_size": 400, "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "num_experts": 6, "num_experts_per_tok": 2,
    "moe_intermediate_size": 12, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
TEXTS = ["one two three four five six", "seven eight nine", "ten eleven twelve thirteen"]


def mixture(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    hf = tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**{**SMALL, "head_dim": 12, **options})).eval()
    for parameter in hf.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return hf


def chosen(hf: torch.nn.Module, router: str, ids: torch.Tensor) -> np.ndarray:
    """The experts that one forward pass of one text really called, token by token, by a plain hook."""
    seen: list[torch.Tensor] = []
    handle = hf.get_submodule(router).register_forward_hook(lambda _m, _args, out: seen.append(out[-1]))
    with torch.no_grad():
        hf(ids)
    handle.remove()
    return seen[0].numpy()


def one_text(codes: plm.Codes, text: int) -> tuple[torch.Tensor, np.ndarray]:
    rows = np.flatnonzero(codes.tokens["document"] == text)
    return torch.tensor([codes.tokens["token_id"].to_numpy()[rows].tolist()]), rows


@pytest.mark.parametrize("name", MIXTURES)
def test_every_bit_of_a_capture_is_the_routers_own_choice(name: str, tokenizer) -> None:
    family = FAMILIES[name]
    options = {**family.options, "vocab_size": 400}
    hf = type(family)(**{**vars(family), "options": options}).make()
    model = plm.wrap(hf, tokenizer, name=name)
    codes = plm.encode(model, TEXTS, layers="all", kind="router", keep=("x", "u", "h"), batch_tokens=1)
    assert [site.kind for site in codes.sites] == ["router", "router"]
    for layer, site in enumerate(codes.sites):
        bits = codes.bits(layer)
        assert bits.shape == (len(codes), site.width)
        assert str(site.premises).startswith(f"routed ({family.activation})")
        for text in range(len(TEXTS)):
            ids, rows = one_text(codes, text)
            own = chosen(hf, family.pre.format(layer), ids)
            assert [set(np.flatnonzero(row)) for row in bits[rows]] == [set(row.tolist()) for row in own]
        r = model.geometry(site)
        u, h = codes.activations("u", layer), codes.activations("h", layer)
        np.testing.assert_allclose(u @ r.weight.T + r.bias, h, atol=1e-4, rtol=1e-4)


def test_codes_of_all_layers_are_a_path_and_travel_in_a_store(tmp_path, tokenizer) -> None:
    model = plm.wrap(mixture(), tokenizer, name="mixture")
    codes = plm.encode(model, TEXTS, layers="all")
    path = codes.joined()
    assert (path.site().key, path.site().width) == ("L00-02.router", 18)
    np.testing.assert_array_equal(path.bits(), np.hstack([codes.bits(layer) for layer in range(3)]))
    assert (path.bits().sum(1) == 6).all()
    plm.capture(model, TEXTS, to=tmp_path / "store", layers="all", keep=("u", "h"))
    opened = plm.open_store(tmp_path / "store")
    seen = overview(opened).layers
    assert [(one.mean_bits_on, one.ambiguous) for one in seen] == [(2.0, None)] * 3
    assert opened.sites == codes.sites
    for layer in range(3):
        np.testing.assert_array_equal(opened.bits(layer), codes.bits(layer))
    one = codes[0, -1, 1]
    assert (np.asarray(one).shape, int(np.asarray(one).sum())) == ((6,), 2)


def test_dense_layers_beside_routers_keep_their_own_kind(tokenizer) -> None:
    model = plm.wrap(mixture(mlp_only_layers=[0]), tokenizer, name="mixed")
    assert [site.kind for site in model.sites] == ["gate", "router", "router"]
    codes = plm.encode(model, TEXTS, layers="all", kind="router")
    assert codes.layers == (1, 2)
    with pytest.raises(plm.PolytopeError, match="mixed, layer 0: no code kind 'router'"):
        model.site(0, "router")
    with pytest.raises(plm.PolytopeError, match="mixed, layer 1: no code kind 'gate'; choose among router"):
        model.site(1, "gate")


def test_what_a_router_has_not_is_refused_by_name(tokenizer) -> None:
    model = plm.wrap(mixture(), tokenizer, name="mixture")
    with pytest.raises(plm.PolytopeError, match=r"can't keep 'post' at L01.router; choose among x, u, h$"):
        plm.encode(model, TEXTS, layers=[1], keep=("post",))
    with pytest.raises(plm.PolytopeError, match="mixture, layer 1: a router's region"):
        plm.path(model, "one two", "one three", layer=1)
    for write in (model.flipping({1: [0]}), model.imposing({1: np.ones((2, 6), bool)})):
        with pytest.raises(plm.PolytopeError, match="mixture, layer 1: a mixture of experts has no neurons"), write:
            pass
    dense = plm.load("tiny-gpt2")
    with pytest.raises(plm.PolytopeError, match="tiny-gpt2: no layer has a router"):
        plm.encode(dense, TEXTS, layers="all", kind="router")


class Plain(torch.nn.Linear):
    """A router that leaves the choice to somebody else."""


class Indices(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).topk(2).indices


@pytest.mark.parametrize(("router", "lacks"), [(Plain, r"indices .*\(no top-k\)"), (Indices, "logits of all")])
def test_a_router_without_a_top_k_is_one_clear_line(router: type, lacks: str) -> None:
    hf = mixture()
    hf.model.layers[2].mlp.gate = router(24, 6, bias=False)

    def forward(u: torch.Tensor) -> torch.Tensor:
        hf.model.layers[2].mlp.gate(u.reshape(-1, 24))
        return u

    hf.model.layers[2].mlp.forward = forward
    with pytest.raises(
        plm.PolytopeError, match=f"odd, layer 2: its router .{router.__name__}. returns no {lacks}"
    ) as e:
        plm.wrap(hf, name="odd")
    assert "\n" not in str(e.value)


class Scored(torch.nn.Module):
    """A router that returns what another returns in another order, and scores as wide as the logits."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.weight, self.inner = inner.weight, inner

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, weights, indices = self.inner(u)
        return logits.softmax(-1), indices, logits, weights


def test_scores_beside_logits_are_told_apart_by_the_weights(tokenizer) -> None:
    hf = mixture()
    plain = plm.encode(plm.wrap(hf, tokenizer, name="plain"), TEXTS, layers=[1], keep=("h",))
    mlp = hf.model.layers[1].mlp
    mlp.gate, experts = Scored(mlp.gate), mlp.experts

    def forward(u: torch.Tensor) -> torch.Tensor:
        flat = u.reshape(-1, u.shape[-1])
        _, indices, _, weights = mlp.gate(flat)
        return experts(flat, indices, weights).reshape(u.shape)

    mlp.forward = forward
    scored = plm.encode(plm.wrap(hf, tokenizer, name="scored"), TEXTS, layers=[1], keep=("h",))
    np.testing.assert_array_equal(scored.bits(), plain.bits())
    np.testing.assert_array_equal(scored.activations("h"), plain.activations("h"))


def test_nan_logits_name_the_place(tokenizer) -> None:
    hf = mixture()
    model = plm.wrap(hf, tokenizer, name="broken")
    hf.model.layers[1].mlp.gate.weight.data[4] = torch.nan
    with pytest.raises(plm.PolytopeError, match=r"L01.router, document \d, token 0 .*, neuron 4: pre-activation nan"):
        plm.encode(model, TEXTS, layers=[1])


def test_the_bridges_hook_of_that_name_gives_the_logits() -> None:
    model = plm.load("tiny-moe")
    sample = [document.text[:600] for document in plm.documents("sample")][:40]
    texts = ["The break statement ends a loop.", *sample]
    codes = plm.encode(model, texts, keep=("h",))
    assert len(codes) > 3000
    names = [site.hook for site in model.sites]
    for text in range(len(codes.texts)):
        ids, rows = one_text(codes, text)
        seen: dict[str, np.ndarray] = {}
        hooks = [(name, lambda value, hook, seen=seen: seen.update({hook.name: value.numpy()})) for name in names]
        with torch.no_grad():
            model.bridge.run_with_hooks(ids, return_type=None, fwd_hooks=hooks)
        for site in model.sites:
            r = seen[site.hook].reshape(len(rows), -1)
            np.testing.assert_allclose(r, codes.activations("h", site.layer)[rows], atol=1e-4)
            top = r.argsort(1).argsort(1) >= site.width - 2
            # Rounding decides where the second and the third choice are as good as one.
            third, second, _ = np.sort(r, axis=1)[:, -3:].T
            clear = second - third > 1e-4
            assert clear.mean() > 0.99
            np.testing.assert_array_equal(top[clear], codes.bits(site.layer)[rows][clear])
    wrapped = plm.wrap(model.bridge)
    assert [site.hook for site in wrapped.sites] == names
    np.testing.assert_array_equal(plm.encode(wrapped, ["The break"], bos=False).bits(2), codes[0, :2].bits(2))
