"""The predicted and the measured trust radius: against dense grids and plain gradients, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm.changes.radius import first_excess, look
from polytope_lm.changes.readout import readout
from polytope_lm.errors import PolytopeError
from polytope_lm.models.derivatives import Onward

PROMPT = "The cat sat on the"


@pytest.fixture(scope="module")
def tiny() -> plm.models.model.Model:
    return plm.load("tiny-gpt2")


def test_first_excess_is_that_of_a_dense_grid() -> None:
    def error(steps: torch.Tensor) -> torch.Tensor:
        rows = torch.tensor([[0.07], [0.5], [2.0], [1e-9]], dtype=torch.float64)
        return (steps / rows) ** 2 * (1.2 + torch.sin(9 * steps))

    found = first_excess(error, np.array([1e-3, 1e-3, 1e-3, 1e-3]), 1.0, 0.1)
    dense = torch.linspace(1e-3, 1, 200_001, dtype=torch.float64).expand(4, -1)
    over = error(dense) > 0.1
    for row in range(2):
        assert found.radius[row] == pytest.approx(float(dense[row][over[row].int().argmax()]), rel=1e-3)
    assert found.beyond == ("", "", "" if bool(over[2].any()) else "above", "below")
    assert found.radius[3] == pytest.approx(1e-3)


@pytest.mark.parametrize("asked", ["logprob", (" a", " the"), "mlp_out", "kl"])
def test_measured_is_where_a_dense_grid_exceeds_tau(tiny: plm.models.model.Model, asked: object) -> None:
    ids = torch.tensor(tiny.tokenizer(PROMPT)["input_ids"])
    read = readout(tiny, asked)  # type: ignore[arg-type]
    onward = Onward(tiny, ids, 1, 3, read="mlp_out" if asked == "mlp_out" else "output")
    seen = look(onward, read, np.random.default_rng(0).standard_normal((2, tiny.d_model)))
    found = seen.measured(0.1)
    for row in range(2):
        if found.beyond[row]:
            continue
        s = torch.linspace(float(seen.low(0.1)[row]), float(found.radius[row]) * 1.02, 400, dtype=torch.float64)[None]
        one = seen.only(row)
        error = one.error(one.true(s), s)[0]
        assert float(error[-10:].max()) > 0.1
        assert float((error[: int(400 / 1.02) - 8] > 0.1).float().mean()) < 0.02


def test_predicted_ranks_what_is_measured(tiny: plm.models.model.Model) -> None:
    rng = np.random.default_rng(1)
    named = {f"d{n}": rng.standard_normal(tiny.d_model) for n in range(12)}
    found = plm.trust_radius(tiny, [PROMPT, "A dog lay by the"], named, layer=[1, 2], measure=True, parts=False)
    table = found.to_frame()
    known = table[table["measured beyond"] == ""]
    off = np.log(known["predicted"] / known["measured"]).abs()
    assert len(known) > 30
    assert off.median() < 0.1
    assert known["predicted"].corr(known["measured"], method="spearman") > 0.9
    assert found.forwards <= 3 * len(table)
    assert found.backwards == 4


def test_the_slope_is_the_plain_models_gradient(tiny: plm.models.model.Model) -> None:
    v = np.random.default_rng(2).standard_normal(tiny.d_model)
    one = plm.trust_radius(tiny, PROMPT, v, layer=2).triples[0]
    block, kept = tiny.hf.transformer.h[2], []
    handle = block.ln_2.register_forward_pre_hook(lambda _m, args: kept.append(args[0]) or args[0].retain_grad())
    logits = tiny.hf(torch.tensor([tiny.tokenizer(PROMPT)["input_ids"]])).logits[0, -1]
    handle.remove()
    logits.log_softmax(-1).max().backward()
    # What the norm reads is what the block carries on: the gradient is the whole one.
    g = kept[0].grad[0, -1].numpy()
    tiny.hf.zero_grad()
    assert one.slope == pytest.approx(float(g @ v / np.linalg.norm(v)), rel=1e-3)
    assert one.norm == pytest.approx(float(kept[0][0, -1].detach().norm()), rel=1e-5)


def test_every_kind_of_direction(tiny: plm.models.model.Model) -> None:
    texts = [f"The {w} was near the old {w}" for w in ("cat", "dog", "boat", "sun")]
    codes = plm.encode(tiny, texts, layers=[1], keep=("x", "u"))
    codes.tokens["side"] = np.where(np.arange(len(codes)) % 2 == 0, "left", "right")
    means = plm.changes.class_means(codes, "side", "left", "right")
    given = {
        "prompt": "The dog lay on the",
        "neuron": 5,
        "means": means,
        "random": plm.changes.random_direction(codes, 3),
    }
    found = plm.trust_radius(tiny, PROMPT, given, layer=1, measure=True)
    assert [one.direction for one in found.triples] == list(given)
    x = codes.activations("x", 1).astype(float)
    side = codes.tokens["side"].to_numpy() == "left"
    assert found.triples[2].length == pytest.approx(np.linalg.norm(x[side].mean(0) - x[~side].mean(0)), rel=1e-6)
    out = tiny.hf.transformer.h[1].mlp.c_proj.weight[5].detach()
    assert found.triples[1].length == pytest.approx(float(out.norm()), rel=1e-6)
    figure = found.plot(0)
    assert {"true", "first order", "with curvature", "secant (RelP)"} <= {trace.name for trace in figure.data}
    with pytest.raises(PolytopeError, match="no value 'up'; it has left, right"):
        plm.changes.class_means(codes, "side", "up")


def test_an_encoder_is_read_by_its_final_state() -> None:
    from small import randomised
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tiny = plm.load("tiny-gpt2")
    made = randomised(
        BertModel(
            BertConfig(
                hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
                vocab_size=len(tiny.tokenizer),
            )
        ),
        0,
    )  # fmt: skip
    assert isinstance(tiny.tokenizer, PreTrainedTokenizerFast)
    model = plm.wrap(made, tiny.tokenizer, name="bert")
    found = plm.trust_radius(model, PROMPT, np.ones(24), layer=1, at="mlp_in", measure=True)
    assert found.triples[0].read == "the final hidden state"
    for ask in (
        lambda: plm.trust_radius(model, PROMPT, np.ones(24), layer=1, readout="logprob"),
        lambda: plm.change(model, PROMPT, np.ones(24), layer=1, readout=(" a", " the")),
        lambda: plm.changes.steer(model, PROMPT, np.ones(24), 1),
        lambda: plm.predictions.directions(model, [PROMPT] * 20),
    ):
        with pytest.raises(PolytopeError, match="bert is an encoder"):
            ask()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"direction": np.zeros(128)}, "direction 0 is zero"),
        ({"direction": np.full(128, np.nan)}, "direction 0 is nan at 0"),
        ({"direction": np.ones(127)}, r"direction 0 has shape \(127,\), expected \[128\]"),
        ({"direction": "The cat sat on the"}, "is zero"),
        ({"direction": 512}, "neuron 512: layer 1 has 512"),
        ({"direction": object()}, "direction = <object"),
        ({"direction": np.ones(128) * 1j}, "no array of real numbers"),
        ({"direction": torch.ones(128, dtype=torch.complex64)}, "no array of real numbers"),
        ({"direction": []}, "direction: none given"),
        ({"direction": {}}, "direction: none given"),
        ({"readout": "Constantinople "}, "'Constantinople ' is . tokens of tiny-gpt2"),
        ({"readout": 7}, "readout = 7"),
        ({"readout": (" a", " a")}, r"' a'\).*both are token \d+"),
        ({"readout": "l2"}, "'l2' is an encoder's"),
        ({"layer": 4}, "no layer 4; it has 4, from 0 to 3"),
        ({"layer": "all"}, "no layer"),
        ({"layer": 1.5}, "no layer 1.5"),
        ({"layer": True}, "no layer True"),
        ({"position": 40}, "position=40 is outside"),
        ({"tau": 0}, "tau = 0"),
        ({"tau": float("nan")}, "tau = nan"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "is a NoneType"),
        ({"at": "post"}, "at='post'"),
        ({"depth": 2}, "no argument 'depth'"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tiny: plm.models.model.Model, change: dict[str, object], said: str) -> None:
    given = {"prompt": PROMPT, "direction": np.ones(128) + np.arange(128), "layer": 1} | change
    with pytest.raises(PolytopeError, match=said):
        plm.trust_radius(tiny, **given)


def test_embeddings_need_no_layer(tiny: plm.models.model.Model) -> None:
    left_out, zero = (plm.trust_radius(tiny, PROMPT, 3, layer, at="embed").triples[0] for layer in (None, 0))
    assert (left_out.layer, left_out.predicted) == (0, zero.predicted)


def test_a_result_comes_back_as_it_was_saved(tiny: plm.models.model.Model, tmp_path: object) -> None:
    found = plm.trust_radius(tiny, PROMPT, 3, layer=1, measure=True)
    found.save(str(tmp_path))
    again = plm.load_result(str(tmp_path))
    assert again.headline == found.headline
    assert again.to_frame().equals(found.to_frame())
    assert "plm.trust_radius(plm.load('tiny-gpt2')" in found.command
