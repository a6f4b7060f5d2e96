"""What a code determines, beside hooks written by hand on the plain transformers module, and against known truths."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import cosine_similarity, kl_div

import polytope_lm as plm
from benchmarks.families import FAMILIES
from polytope_lm.errors import PolytopeError
from polytope_lm.models.gates import Mlp, mlp_of
from polytope_lm.predictions.determination.arms import CAUSAL, MEAN, READ_OUT, Here, arms
from polytope_lm.predictions.determination.fitting import DONORS, donors_of, fit, pool_of, ridge
from polytope_lm.predictions.determination.losses import Plan, measure

PLAIN = ("mean-ablated", "1 bit", "2 bits", "tangent", "secant", "hard gate", "negative side flattened")
DOWN = {"Llama": "model.layers.{}.mlp.down_proj", "GPT-J": "transformer.h.{}.mlp.fc_out",
        "OPT": "model.decoder.layers.{}.fc2", "BERT": "encoder.layer.{}.output.dense"}  # fmt: skip


def windows(count: int, seed: int = 0) -> list[np.ndarray]:
    return [ids.astype(np.int64) for ids in np.random.default_rng(seed).integers(3, 60, (count, 12))]


def plan(model: Any, layers: tuple[int, ...], fitted: list[np.ndarray], neurons: int = 5) -> Plan:
    pool = pool_of(model, fitted, range(len(fitted)), layers)
    fits = {layer: fit(model, layer, pool, draws=2, seed=0) for layer in layers}
    gated = all("up" in model.block(layer).pre for layer in layers)
    return Plan(model, layers, arms(gated=gated, draws=2, neurons=neurons), fits, neurons, 2, 0)


def branches(family: Any, hf: torch.nn.Module, layers: tuple[int, ...], ids: np.ndarray) -> dict[Any, torch.Tensor]:
    """Read `h`, `up` and `post` by plain hooks."""
    found: dict[Any, torch.Tensor] = {}
    handles = []
    for layer in layers:
        for name, path in (("h", family.pre), ("up", family.up)):
            if path is not None:
                module = hf.get_submodule(path.format(layer))
                handles.append(
                    module.register_forward_hook(
                        lambda _m, _a, y, key=(name, layer): found.update({key: y.detach().reshape(len(ids), -1)})
                    )
                )
    with torch.no_grad():
        hf(torch.as_tensor(ids)[None])
    [handle.remove() for handle in handles]
    return found


def act_of(family: Any) -> Any:
    return {
        "silu": torch.nn.functional.silu, "relu": torch.relu, "gelu": torch.nn.functional.gelu,
        "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    }[family.activation]  # fmt: skip


def by_hand(family: Any, name: str, h: torch.Tensor, up: Any, means: dict[str, Any]) -> torch.Tensor:
    """Write what an arm makes of post, from the formulas, neuron by neuron where it is simple."""
    act, z = act_of(family), h > 0
    times = 1 if up is None else up
    if name == "mean-ablated":
        return means["mean"].expand_as(h)
    if name == "1 bit":
        return torch.where(z, means["post", True], means["post", False])
    if name == "2 bits":
        pairs = [(a, b) for a in (False, True) for b in (False, True)]
        return sum(((z == a) & ((up > 0) == b)) * means["post", a, b] for a, b in pairs)
    if name == "tangent":
        slope = torch.where(z, means["slope", True], means["slope", False])
        return (slope * h + torch.where(z, means["rest", True], means["rest", False])) * times
    if name == "secant":
        return torch.where(z, means["secant", True], means["secant", False]) * h * times
    on = torch.relu(h) if name == "hard gate" else torch.where(z, act(h), means["act", False])
    return on * times


def means_of(family: Any, rows: list[dict[Any, torch.Tensor]], layer: int) -> dict[Any, torch.Tensor]:
    h = torch.cat([row["h", layer][1:] for row in rows]).double()
    up = torch.cat([row["up", layer][1:] for row in rows]).double() if family.up else None
    act = act_of(family)
    slope = torch.func.vmap(torch.func.grad(act))(h.reshape(-1)).reshape(h.shape)
    on = act(h)
    post = on if up is None else on * up
    named = {"post": post, "slope": slope, "rest": on - slope * h, "secant": on / h, "act": on}

    def mean(value: torch.Tensor, where: torch.Tensor, fallback: torch.Tensor) -> torch.Tensor:
        columns = [value[where[:, i], i].mean() if where[:, i].any() else fallback[i] for i in range(h.shape[1])]
        return torch.stack(columns).float()

    found: dict[Any, torch.Tensor] = {"mean": post.mean(0).float()}
    for bit in (False, True):
        found |= {(name, bit): mean(value, (h > 0) == bit, value.mean(0)) for name, value in named.items()}
        if up is not None:
            for other in (False, True):
                there = (up > 0) == other
                column = torch.stack([post[there[:, i], i].mean() for i in range(h.shape[1])])
                found["post", bit, other] = mean(post, ((h > 0) == bit) & there, column)
    return found


def final(model: Any, hf: torch.nn.Module, ids: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        out = hf(torch.as_tensor(ids)[None])
    return (out.logits if model.has_logits else out.last_hidden_state)[0].double()


@pytest.mark.parametrize("name", DOWN)
@pytest.mark.parametrize("layers", [(1,), (0, 1)])
def test_every_formula_is_what_plain_hooks_give(name: str, layers: tuple[int, ...]) -> None:
    family = FAMILIES[name]
    hf = family.make()
    model = plm.wrap(hf, name=name)
    fitted, ids = windows(12), windows(1, seed=7)[0]
    wanted = plan(model, layers, fitted)
    found = measure(wanted, ids, 0)
    read = [branches(family, hf, layers, each) for each in fitted]
    means = {layer: means_of(family, read, layer) for layer in layers}
    clean = final(model, hf, ids)
    number = {arm.name: i for i, arm in enumerate(wanted.arms)}
    seen: dict[Any, torch.Tensor] = {}
    for arm in PLAIN:
        if arm not in number:
            assert (arm, family.up) == ("2 bits", None)
            continue
        seen.clear()
        handles = []
        for layer in layers:
            for key, path in (("h", family.pre), ("up", family.up)):
                if path is not None:
                    handles.append(
                        hf.get_submodule(path.format(layer)).register_forward_hook(
                            lambda _m, _a, y, key=(key, layer): seen.update({key: y.reshape(len(ids), -1)})
                        )
                    )

            def write(_m: Any, args: Any, layer: int = layer, arm: str = arm) -> Any:
                post = args[0].reshape(len(ids), -1).clone()
                new = by_hand(family, arm, seen["h", layer], seen.get(("up", layer)), means[layer])
                post[1:] = new[1:]
                return (post.reshape(args[0].shape), *args[1:])

            handles.append(hf.get_submodule(DOWN[name].format(layer)).register_forward_pre_hook(write))
        out = final(model, hf, ids)
        [handle.remove() for handle in handles]
        if model.has_logits:
            log_q, log_p = out[1:-1].log_softmax(-1), clean[1:-1].log_softmax(-1)
            loss = -log_q[torch.arange(len(ids) - 2), torch.as_tensor(ids[2:])].sum()
            kl = kl_div(log_q, log_p, log_target=True, reduction="sum")
            assert found["kl"][number[arm]] == pytest.approx(float(kl), rel=1e-3, abs=1e-4), arm
        else:
            loss = (1 - cosine_similarity(out[1:], clean[1:], dim=-1)).sum()
            assert found["kl"] == []
        assert found["loss"][number[arm]] == pytest.approx(float(loss), rel=1e-4, abs=2e-4), arm
    assert found["tokens"] == len(ids) - (2 if model.has_logits else 1)


def test_prefix_reuse_changes_nothing_and_other_layers_do() -> None:
    model = plm.wrap(FAMILIES["Llama"].make(), name="Llama")
    ids = windows(1, seed=3)[0]
    alone, both = (measure(plan(model, layers, windows(8)), ids, 0) for layers in ((1,), (0, 1)))
    assert alone["clean"] == pytest.approx(both["clean"], rel=1e-6)
    assert alone["loss"] != pytest.approx(both["loss"], rel=1e-3)


def test_the_own_code_and_the_own_magnitudes_are_the_identity() -> None:
    for name in ("Llama", "GPT-J", "BERT"):
        model = plm.wrap(FAMILIES[name].make(), name=name)
        ids = windows(1, seed=5)[0]
        wanted = plan(model, (1,), [ids, *windows(6)])
        fitted, own = wanted.fits[1], np.arange(len(ids) - 1)
        block, u = model.block(1), wanted.fits[1].u[: len(ids) - 1]
        with torch.no_grad():
            mlp = mlp_of(block, u)
            everywhere = torch.ones_like(mlp.h, dtype=torch.bool)
            here = Here(fitted, dict.fromkeys(DONORS, own), everywhere, [everywhere] * 2)
            nowhere = Here(fitted, dict.fromkeys(DONORS, own - own - 1), everywhere, [everywhere] * 2)
            for arm in wanted.arms:
                if arm.donor:
                    assert torch.allclose(arm.write(here, mlp), mlp.post, atol=1e-6), (name, arm.name)
                    assert torch.equal(arm.write(nowhere, mlp), mlp.post), (name, arm.name)


def test_behind_relus_the_hard_gate_and_the_secant_are_exact() -> None:
    codes = plm.encode(plm.load("tiny-relu"), list(plm.documents("sample"))[:12], layers=[1])
    found = plm.predictions.determination(codes, 1, max_tokens=24, fit_tokens=300, draws=1, resamples=20)
    for one in found.places:
        for group, name in (("hard gate", "hard gate"), ("affine per cell", "secant"), ("affine per cell", "tangent")):
            # A side that no fitting token was on has the neuron's mean: the affine cells are off there.
            score, most = one.score(group, name), 1e-5 if group == name else 1e-3
            assert abs(score.lost.value) < most
            assert score.kl.value < most
        assert one.score("hard gate", "negative side flattened").lost.value == pytest.approx(0, abs=1e-5)
        assert one.score(MEAN).recovered.value == 0
        assert one.verdict.premises_met
    assert found.together.site.place == "Layers 0-3"


def test_donors_are_of_the_same_token_or_cluster() -> None:
    model = plm.wrap(FAMILIES["Llama"].make(), name="Llama")
    wanted = plan(model, (1,), windows(12))
    fitted, ids = wanted.fits[1], windows(1, seed=9)[0]
    with torch.no_grad():
        h = fitted.donated(np.arange(30))
    token_id = np.array([*fitted.token_id[:29], 1])
    found = donors_of(fitted, h, token_id, np.random.default_rng(0))
    assert (fitted.token_id[found[DONORS[2]][:29]] == token_id[:29]).all()
    assert found[DONORS[2]][29] == -1
    for name in DONORS[:2]:
        cluster = {int(row): n for n, rows in enumerate(fitted.clusters[name].members) for row in rows}
        assert all(cluster[int(donor)] == cluster[row] for row, donor in enumerate(found[name]))
    assert len(ids) == 12


def test_causal_neurons_are_those_of_the_largest_post_times_gradient() -> None:
    model = plm.wrap(FAMILIES["GPT-J"].make(), name="GPT-J")
    hf, ids = model.hf, windows(1, seed=4)[0]
    width = model.site(1).width
    everything = measure(plan(model, (1,), windows(8), neurons=width), ids, 0)
    few = measure(plan(model, (1,), windows(8), neurons=5), ids, 0)
    named = {arm.name: i for i, arm in enumerate(arms(gated=False, draws=2, neurons=5))}
    # With all neurons causal the arm is that of a random donor.
    assert everything["loss"][named["code imposed, 5 causal"]] == pytest.approx(
        next(v for a, v in zip(arms(gated=False, draws=2, neurons=width), everything["loss"], strict=True)
             if a.name == DONORS[3] and a.group.startswith("code imposed")), rel=1e-6)  # fmt: skip
    post: list[torch.Tensor] = []
    handle = hf.get_submodule("transformer.h.1.mlp.fc_out").register_forward_pre_hook(
        lambda _m, args: (post.append(args[0].detach().requires_grad_()), (post[0],))[1]
    )
    log_p = hf(torch.as_tensor(ids)[None]).logits[0, 1:].log_softmax(-1)
    (slope,) = torch.autograd.grad(log_p.max(-1).values.sum(), post)
    handle.remove()
    relevance = (post[0] * slope)[0, 1:].abs().detach()
    chosen = torch.zeros_like(relevance, dtype=torch.bool).scatter_(-1, relevance.topk(5).indices, value=True)
    wanted = plan(model, (1,), windows(8), neurons=5)
    seen: list[torch.Tensor] = []
    causal = next(arm for arm in wanted.arms if arm.group == CAUSAL and "5 causal" in arm.name)

    def spying(here: Any, mlp: Mlp) -> torch.Tensor:
        seen.append(here.causal)
        return causal.write(here, mlp)

    spied = [arm if arm is not causal else type(arm)(arm.name, arm.group, arm.becomes, spying) for arm in wanted.arms]
    again = measure(Plan(model, (1,), tuple(spied), wanted.fits, 5, 2, 0), ids, 0)
    assert torch.equal(seen[0], chosen)
    assert again["loss"] == few["loss"]


def test_the_ridge_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    X = (rng.random((200, 30)) > 0.5).astype(np.float32)
    Y = (X @ rng.standard_normal((30, 4)) + rng.standard_normal((200, 4)) + 3).astype(np.float32)
    held = np.arange(200) % 5 == 0
    weight, bias, penalty = ridge(X, Y, held)
    theirs = Ridge(alpha=penalty).fit(X, Y)
    np.testing.assert_allclose(weight, theirs.coef_.T, atol=1e-4)
    np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-4)
    errors = {
        a: np.square(Ridge(alpha=a).fit(X[~held], Y[~held]).predict(X[held]) - Y[held]).sum()
        for a in (1.0, 10.0, 100.0, 1000.0, 10000.0)
    }
    assert penalty == min(errors, key=errors.get)


def test_bits_are_what_they_are_called() -> None:
    model = plm.wrap(FAMILIES["Llama"].make(), name="Llama")
    wanted = plan(model, (1,), windows(12))
    fitted, u = wanted.fits[1], wanted.fits[1].u
    with torch.no_grad():
        h = fitted.donated(np.arange(len(u)))
        features = {name: each[0].features(Mlp(u, h, None, h)) for name, each in fitted.readouts.items()}
    assert torch.equal(features["code"], (h > 0).float())
    assert torch.equal(features["sign of u"], (u > 0).float())
    np.testing.assert_allclose(features["SimHash, rate-matched"].sum(0).numpy(), (h > 0).sum(0).numpy(), atol=1)
    assert (features["k-means index of u"].sum(1) == 1).all()
    assert len(fitted.readouts["SimHash, rate-matched"]) == 2


@pytest.fixture(scope="module")
def codes() -> Any:
    return plm.encode(plm.load("tiny-gpt2"), list(plm.documents("sample"))[:14], layers=[1, 2])


FEW: dict[str, Any] = {"max_tokens": 24, "fit_tokens": 300, "draws": 2, "resamples": 20, "together": False}


def test_a_stopped_run_goes_on_and_a_finished_one_is_read(codes, tmp_path, monkeypatch) -> None:
    whole = plm.predictions.determination(codes, 1, **FEW)
    kept = plm.predictions.determination(codes, 1, **FEW, to=tmp_path)
    assert kept.to_frame().equals(whole.to_frame())
    file = tmp_path / "layer-01.jsonl"
    lines = file.read_bytes()
    file.write_bytes(b"".join(lines.splitlines(keepends=True)[:3]))
    assert plm.predictions.determination(codes, 1, **FEW, to=tmp_path).to_frame().equals(whole.to_frame())
    assert file.read_bytes() == lines
    monkeypatch.setattr(importlib.import_module("polytope_lm.predictions.determination.test"), "fit", None)
    assert plm.predictions.determination(codes, 1, **FEW, to=tmp_path).to_frame().equals(whole.to_frame())
    with pytest.raises(PolytopeError, match=r"layer-01\.jsonl"):
        plm.predictions.determination(codes, 1, **FEW, neurons=7, to=tmp_path)


def test_where_nothing_is_at_stake_no_ratio_is_shown(gpt2, tokenizer) -> None:
    hf = gpt2()
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_proj.weight.mul_(1e-4)
    model = plm.wrap(hf, tokenizer)
    texts = [f"The {a} bank of the {b} river was wet and the {c} knew it well" for a, b, c in
             zip("abcdefghijkl", "lkjihgfedcba", "defghijklabc", strict=True)]  # fmt: skip
    found = plm.predictions.determination(plm.encode(model, texts, layers=[1]), **FEW)
    one = found.layers[0]
    assert (one.verdict, one.leads) == (None, {})
    assert all(each.recovered is None for each in one.scores)
    assert "not testable" in found.verdict
    assert "below 0.02" in found.verdict
    assert found.plot().data
    assert "nats a token lost" in found._repr_html_()


def test_the_loss_recovered_is_a_ratio_of_sums_over_documents(codes, tmp_path) -> None:
    found = plm.predictions.determination(codes, 2, **FEW | {"together": True}, to=tmp_path).together
    _, *lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    names = [(arm.group, arm.name) for arm in arms(gated=False, draws=2, neurons=100)]
    total = {key: sum(line[key] for line in lines) for key in ("tokens", "clean")}
    loss = np.sum([line["loss"] for line in lines], axis=0)
    for group, name in (("constant per cell", "1 bit"), (READ_OUT, "SimHash, rate-matched")):
        mine = np.mean([value for value, arm in zip(loss, names, strict=True) if arm == (group, name)])
        score = found.score(group, name)
        assert score.lost.value == pytest.approx((mine - total["clean"]) / total["tokens"])
        assert score.recovered.value == pytest.approx(1 - (mine - total["clean"]) / (loss[0] - total["clean"]))
    lead = found.leads["sign of u"]
    ahead = (found.score(READ_OUT, name).recovered.value for name in ("code", "sign of u"))
    assert lead.value == pytest.approx(next(ahead) - next(ahead))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": 9}, "layer 9 is not in these codes"),
        ({"draws": 0}, "draws = 0"),
        ({"neurons": 0}, "neurons = 0"),
        ({"documents": 0}, "documents = 0"),
        ({"max_tokens": "all"}, "max_tokens = 'all'"),
        ({"smallest_effect": -1}, "smallest_effect = -1"),
        ({"max_tokens": 4}, "0 different documents of at least 8 tokens"),
        ({"model": plm.load("tiny-relu")}, "tiny-relu has another"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_bad_input_is_one_line(codes, options, said) -> None:
    with pytest.raises(PolytopeError, match=said) as error:
        plm.predictions.determination(codes, **{"layer": 1, **FEW, **options})
    assert "\n" not in str(error.value)


def test_too_few_documents(codes) -> None:
    few = plm.encode(plm.load("tiny-gpt2"), list(plm.documents("sample"))[:3], layers=[1])
    with pytest.raises(PolytopeError, match="3 different documents of at least 8 tokens; at least 8"):
        plm.predictions.determination(few, **FEW)
