"""The largest useful coefficient: against a plain hook, a fine scan, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm.changes.steering import continuation
from polytope_lm.errors import PolytopeError

PROMPT = "The cat sat on the"


@pytest.fixture(scope="module")
def tiny() -> plm.models.model.Model:
    return plm.load("tiny-gpt2")


def test_measured_is_where_a_plain_hook_reaches_a_nat(tiny: plm.models.model.Model) -> None:
    v = plm.changes.contrast(tiny, ["The dog is good", "The cat is good"], ["An error is bad", "A loop is bad"], 1)
    found = plm.changes.steer(tiny, PROMPT, v, 1, tokens=12)
    ids = torch.tensor(tiny.tokenizer(PROMPT)["input_ids"])
    whole = continuation(tiny, PROMPT, 12)
    with torch.no_grad():
        made = tiny.hf.generate(ids[None], max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert whole[: made.shape[1]].tolist() == made[0].tolist()
    block = tiny.hf.transformer.h[1]

    def percentile(c: float) -> float:
        push = torch.as_tensor(c * v, dtype=torch.float32)
        with torch.no_grad():
            clean = tiny.hf(whole[None]).logits[0, len(ids) - 1 : -1].double().log_softmax(-1)
            handles = [
                block.ln_2.register_forward_pre_hook(lambda _m, args: (args[0] + push,)),
                block.mlp.register_forward_hook(lambda _m, _a, out: out + push),
            ]
            moved = tiny.hf(whole[None]).logits[0, len(ids) - 1 : -1].double().log_softmax(-1)
            for handle in handles:
                handle.remove()
        return float(np.percentile((clean.exp() * (clean - moved)).sum(-1).numpy(), 95))

    assert found.measured is not None
    assert not found.censored
    assert percentile(found.measured * 1.01) > 1 > percentile(found.measured * 0.99)
    assert 0.2 < found.predicted / found.measured < 5


def test_what_is_beyond_the_largest_push_is_said(tiny: plm.models.model.Model) -> None:
    v = torch.as_tensor(plm.changes.contrast(tiny, ["This is good"], ["This is bad"], 1)).to(torch.bfloat16)
    far = plm.changes.steer(tiny, PROMPT, v, 1, tokens=2, nats=1e6)
    assert far.censored
    assert far.predicted_censored
    assert far.predicted == far.measured == pytest.approx(8 * far.norm / far.length)
    assert f"predicted beyond {far.predicted:.3g} (800% of the stream's norm)" in repr(far)
    assert "measured beyond" in far._repr_html_()
    near = plm.changes.steer(tiny, PROMPT, v, 1, measure=False)
    assert not near.predicted_censored
    assert "beyond" not in repr(near)
    assert "measured" not in repr(near)


def test_the_lens_prefers_what_the_model_says_at_the_end(tiny: plm.models.model.Model) -> None:
    logits = tiny.hf(torch.tensor([tiny.tokenizer(PROMPT)["input_ids"]])).logits[0, -1]
    best, worst = (tiny.tokenizer.decode([int(i)]) for i in (logits.argmax(), tiny.tokenizer(" the")["input_ids"][0]))
    last = tiny.n_layers - 1
    share = plm.changes.linear_accessibility(tiny, [PROMPT, PROMPT], [(best, worst), (worst, best)], last)
    assert share == 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vector": np.zeros(128)}, "vector is zero"),
        ({"vector": "This is good"}, "vector = 'This is good' is no array of real numbers: give 128 numbers"),
        ({"vector": torch.zeros(128, requires_grad=True)}, "vector is zero"),
        ({"vector": np.ones(5)}, r"vector has shape \(5,\)"),
        ({"nats": 0}, "nats = 0"),
        ({"tokens": 0}, "tokens = 0"),
        ({"layer": 7}, "no layer 7"),
        ({"layer": True}, "no layer True"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tiny: plm.models.model.Model, change: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"prompt": PROMPT, "vector": np.ones(128), "layer": 1} | change
    with pytest.raises(PolytopeError, match=said):
        plm.changes.steer(tiny, **given)
    with pytest.raises(PolytopeError, match="continued: 2 ids"):
        plm.changes.steer(tiny, PROMPT, np.ones(128), 1, continued=torch.tensor([5, 7]))
    with pytest.raises(PolytopeError, match="0 positive and 1 negative"):
        plm.changes.contrast(tiny, [], ["a"], 1)
