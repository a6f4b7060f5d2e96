"""Loss recovered with few maps: identities, limits, and a loss taken by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.affine import inputs_of, maps_at, reduce
from polytope_lm.geometry.reduction import GROUPED, _split, reduction
from polytope_lm.result import load_result
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.ridge import ridge


@pytest.fixture(scope="module")
def documents():
    return list(plm.documents("sample"))[:12]


@pytest.fixture(scope="module")
def found(documents):
    return reduction(plm.load("tiny-relu"), documents, 1, ks=[1, 8, 40], tested=5, max_tokens=48, seed=3, resamples=50)


def test_each_token_its_own_map_loses_nothing(found):
    assert abs(found.arm("own map").lost.value) < 1e-5
    assert found.arm("own map").recovered.value == pytest.approx(1, abs=1e-4)


def test_one_centre_is_the_mean_map_whatever_chose_it(found):
    mean = found.arm("mean map", 1).lost.value
    for name in GROUPED:
        assert found.arm(name, 1).lost.value == pytest.approx(mean, abs=1e-5)


def test_without_the_mlp_everything_is_lost(found):
    assert found.arm("mean-ablated").recovered.value == pytest.approx(0, abs=1e-9)
    assert found.removed.value == pytest.approx(found.arm("mean-ablated").lost.value)


def test_random_groups_are_worse_than_clusters_and_near_the_mean_map(found):
    clusters, random = found.arm("k maps", 40).lost.value, found.arm("random groups", 40).lost.value
    mean = found.arm("mean map", 1).lost.value
    assert abs(random - mean) < (random - clusters) / 2


K, SEED = 6, 3


@pytest.fixture(scope="module")
def hand(documents):
    """A reduction, and what it must be redone by hand: weights, inputs to fit on, stretches to test."""
    model, options = plm.load("tiny-relu"), {"tested": 3, "max_tokens": 32, "fit_tokens": 300, "seed": SEED}
    fitted, windows = _split(model, documents, **options)
    mlp = model.hf.transformer.h[1].mlp
    w1, b1, w2, b2 = (p.detach() for p in (mlp.c_fc.weight, mlp.c_fc.bias, mlp.c_proj.weight, mlp.c_proj.bias))
    return SimpleNamespace(
        found=reduction(model, documents, 1, ks=[K], resamples=4, **options), model=model, windows=windows,
        u=inputs_of(model, fitted, 1), h=lambda x: x @ w1 + b1, out=lambda post: post @ w2 + b2,
        slopes=lambda x: torch.einsum("dn,tn,ne->tde", w1, (x @ w1 + b1 > 0).float(), w2),
        offsets=lambda x: ((x @ w1 + b1 > 0) * b1) @ w2 + b2,
    )  # fmt: skip


def hold(hand, stands):
    """Compare losses with those of a plain hook in the MLP's place."""
    lost, tokens = dict.fromkeys(stands, 0.0), 0
    for ids in hand.windows:
        clean = loss(hand.model, ids, 1, None)
        for name, stand in stands.items():
            lost[name] += loss(hand.model, ids, 1, stand) - clean
        tokens += len(ids) - 2
    for name, total in lost.items():
        arm = hand.found.arm(name, K if name in GROUPED else int(name == "mean map"))
        assert arm.lost.value == pytest.approx(total / tokens, abs=2e-5), name
    assert len({round(total, 3) for total in lost.values()}) == len(lost)


def test_groups_by_hand(hand):
    """Whole matrices, their means, the nearest by brute force."""
    u, h = hand.u, hand.h
    start = derived(SEED, Purpose.REDUCTION, 2)
    labels = reduce(maps_at(hand.model, 1, u), K, seed=start).labels
    rng = np.random.default_rng(derived(SEED, Purpose.REDUCTION, 1))
    shuffled = rng.permutation(labels)
    share = np.bincount(labels, minlength=K) / len(labels)
    slopes, offsets = hand.slopes(u), hand.offsets(u)

    def in_groups(groups, where, choose=None):
        j, a, centres = (torch.stack([v[groups == g].mean(0) for g in range(K)]) for v in (slopes, offsets, where(u)))

        def output(x):
            c = ((where(x)[:, None] - centres) ** 2).sum(2).argmin(1) if choose is None else choose(len(x))
            return torch.einsum("td,tde->te", x, j[c]) + a[c]

        return output

    def maps(x):
        return torch.cat([hand.slopes(x).flatten(1), hand.offsets(x)], dim=1)

    points = {
        "by code": lambda x: (h(x) > 0).float(),
        "by cosine": lambda x: (x - u.mean(0)) / (x - u.mean(0)).norm(dim=1, keepdim=True),
        "by vector": lambda x: x,
    }
    stands = {
        "random groups": in_groups(shuffled, maps, lambda n: rng.choice(K, n, p=share)),
        "k maps": in_groups(labels, maps), "random groups, nearest": in_groups(shuffled, maps),
    }  # fmt: skip
    for name, where in points.items():
        clusters = KMeans(K, init="random", n_init=1, max_iter=20, random_state=start).fit_predict(where(u).numpy())
        stands[name] = in_groups(clusters, where)
    assert set(stands) == set(GROUPED)
    hold(hand, stands)


def test_single_fits_by_hand(hand):
    """The other arms: fits of numpy and scikit-learn."""
    u, h = hand.u, hand.h
    out = hand.out(torch.relu(h(u)))
    curves = np.array([np.polyfit(each, np.maximum(each, 0), 2) for each in h(u).double().numpy().T]).T[:, None]
    penalty = ridge(u.numpy(), out.numpy(), np.arange(len(u)) % 5 == 0)[2]
    line = Ridge(penalty).fit(u.numpy(), out.numpy())
    slope, offset = hand.slopes(u).mean(0), hand.offsets(u).mean(0)
    stands = {
        "quadratic": lambda x: hand.out(torch.tensor(np.polyval(curves, h(x).numpy()), dtype=x.dtype)),
        "linear": lambda x: torch.tensor(line.predict(x.numpy()), dtype=x.dtype),
        "mean-ablated": lambda x: out.mean(0).expand(len(x), -1),
        "mean map": lambda x: x @ slope + offset,
        "own map": lambda x: hand.out(torch.relu(h(x))),
    }
    assert {*stands, *GROUPED} == {arm.name for arm in hand.found.arms}
    hold(hand, stands)


def test_where_removing_the_mlp_costs_little_there_is_no_ratio(found, monkeypatch, documents):
    assert found.removed.value >= 0.02
    few = documents[:6]
    options = {"ks": [2], "tested": 2, "max_tokens": 24, "resamples": 10}
    there = reduction(plm.load("tiny-relu"), few, 1, **options)
    monkeypatch.setattr("polytope_lm.geometry.reduction.LEAST", there.removed.value + 1e-3)
    gone = reduction(plm.load("tiny-relu"), few, 1, **options)
    assert there.removed.low > 0
    assert all(arm.recovered is not None for arm in there.arms)
    assert all(arm.recovered is None for arm in gone.arms)
    assert [arm.lost for arm in gone.arms] == [arm.lost for arm in there.arms]


@torch.no_grad()
def loss(model, ids, layer, replaced):
    """Return the summed loss after the first token's, a layer's MLP replaced by a plain hook but at the first token."""

    def hook(_module, inputs, output):
        return output if replaced is None else torch.cat([output[:, :1], replaced(inputs[0][0, 1:])[None]], dim=1)

    handle = model.hf.transformer.h[layer].mlp.register_forward_hook(hook)
    try:
        logits = model.hf(torch.as_tensor(ids)[None]).logits[0, 1:-1].log_softmax(-1)
    finally:
        handle.remove()
    return float(-logits[torch.arange(len(ids) - 2), torch.as_tensor(ids)[2:]].sum())


def test_a_result_saved_before_an_arm_was_there_is_drawn(found):
    from dataclasses import replace

    before = replace(found, arms=tuple(arm for arm in found.arms if arm.name != "random groups, nearest"))
    assert "random groups, nearest" not in {trace.name for trace in before.plot().data}


def test_the_clean_loss_is_the_models(found, documents):
    model = plm.load("tiny-relu")
    whole = reduction(model, documents[:4], 0, ks=[1], tested=2, max_tokens=32, resamples=10)
    losses = []
    for document in documents[:4]:
        ids = torch.tensor([model.tokenizer(document.text)["input_ids"][:32]])
        logits = model.hf(ids).logits[0, 1:-1].log_softmax(-1)
        losses.append(-logits[torch.arange(30), ids[0, 2:]].mean().item())
    pairs = [(losses[i] + losses[j]) / 2 for i in range(4) for j in range(i)]
    assert min(abs(whole.clean - each) for each in pairs) < 1e-4


def test_a_layer_that_is_linear_is_one_map(gpt2, tokenizer, documents):
    """With act = identity every token has the same map: one linear fit, one map, a quadratic all lose nothing."""
    hf = gpt2(activation_function="linear")
    model = plm.wrap(hf, tokenizer, name="linear")
    linear = reduction(model, documents[:6], 1, ks=[1, 2], tested=2, max_tokens=48, resamples=10)
    for name, k in (("mean map", 1), ("k maps", 2), ("quadratic", 0)):
        assert abs(linear.arm(name, k).lost.value) < 1e-4
    assert abs(linear.arm("linear").lost.value) < 0.1 * linear.removed.value


def test_a_gated_model_runs(gated, documents):
    small = reduction(gated, documents[:4], 0, ks=[2], kind="secant", tested=2, max_tokens=24, resamples=10)
    assert abs(small.arm("own map").lost.value) < 1e-5


def test_it_is_saved_and_shown(found, tmp_path):
    found.save(tmp_path)
    again = load_result(tmp_path)
    assert again.arms == found.arms
    frame = again.to_frame()
    assert set(frame["arm"]) >= {"k maps", "random groups", "by code", "by cosine", "linear", "quadratic"}
    np.testing.assert_allclose(frame["nats lost"], [arm.lost.value for arm in found.arms])
    assert "random groups" in found.headline
    assert found.command.startswith("plm.geometry.reduction.reduction(")
    (figure,) = found.figures().values()
    traces = {trace.name: trace for trace in figure.data}
    for name in GROUPED:
        drawn, arms = traces[name], [arm for arm in found.arms if arm.name == name]
        assert list(drawn.x) == [arm.k for arm in arms]
        np.testing.assert_allclose(drawn.y, [arm.recovered.value for arm in arms])
        ends = np.array(drawn.y) + drawn.error_y.array, np.array(drawn.y) - drawn.error_y.arrayminus
        np.testing.assert_allclose(ends, [[a.recovered.high for a in arms], [a.recovered.low for a in arms]])
    np.testing.assert_allclose(traces["linear"].y, found.arm("linear").recovered.value)
    assert figure.layout.yaxis.range == (-1.05, 1.05)


def test_loss_recovered_is_the_share_of_what_the_mlp_does(found):
    for arm in found.arms:
        assert arm.recovered.value == pytest.approx(1 - arm.lost.value / found.removed.value)


def test_where_the_mlp_does_nothing_nats_are_drawn(found):
    from dataclasses import replace

    bare = replace(found, arms=tuple(replace(arm, recovered=None) for arm in found.arms))
    traces = {trace.name: trace for trace in bare.plot().data}
    np.testing.assert_allclose(traces["k maps"].y, [a.lost.value for a in found.arms if a.name == "k maps"])
    assert bare.plot().layout.yaxis.range is None


def test_the_headline_names_both_arms_of_random_groups(found):
    from dataclasses import replace

    lost = {name: found.arm(name, 40).lost.value for name in GROUPED[:3]}
    said = [f"{lost[name]:.3f}" for name in GROUPED[:3]]
    assert len(set(said)) == 3
    assert (
        f"maps lose {said[0]} nats a token, as many random groups {said[1]}, the nearest of them {said[2]}, no MLP"
        in (found.headline)
    )
    before = replace(found, arms=tuple(arm for arm in found.arms if arm.name != "random groups, nearest"))
    assert f"random groups {said[1]}, no MLP" in before.headline


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ks": 5}, "ks=5: give several"),
        ({"ks": None}, "ks=None: give several"),
        ({"fit_tokens": 0}, "fit_tokens=0: give a whole number from 1"),
        ({"tested": 0}, "tested=0: give a whole number from 2"),
        ({"tested": 1}, "tested=1: give a whole number from 2"),
        ({"max_tokens": 7}, "max_tokens=7: give a whole number from 8"),
    ],
)
def test_numbers_that_are_none_are_refused(documents, options, said):
    with pytest.raises(PolytopeError, match=said):
        reduction(plm.load("tiny-relu"), documents[:4], 1, **{"ks": [1], "tested": 2, "max_tokens": 24, **options})


def test_a_mixture_of_experts_is_refused_before_anything_is_read(documents, monkeypatch):
    monkeypatch.setattr("polytope_lm.geometry.reduction.inputs_of", None)
    with pytest.raises(PolytopeError, match="tiny-moe, layer 1: a mixture of experts has no one map"):
        reduction(plm.load("tiny-moe"), documents, 1, ks=[1])


def test_what_cannot_be_reduced_is_refused(documents):
    model = plm.load("tiny-relu")
    with pytest.raises(PolytopeError, match=r"ks=\[100000\]"):
        reduction(model, documents[:4], 1, ks=[100_000], tested=2, max_tokens=24)
    with pytest.raises(PolytopeError, match=r"ks=\[24\]: give numbers from 1 to 15, at least 3 for each map of the 46"):
        reduction(model, documents[:4], 1, ks=[24], tested=2, max_tokens=24, fit_tokens=40)
    with pytest.raises(PolytopeError, match=r"ks=\[\]"):
        reduction(model, documents[:4], 1, ks=[], tested=2, max_tokens=24)
    with pytest.raises(PolytopeError, match="2 documents of at least 8 tokens"):
        reduction(model, documents[:2], 1)
