"""On a ReLU network with biases the code alone determines the MLP's affine map."""

from __future__ import annotations

import numpy as np
import torch

import polytope_lm as plm
from polytope_lm.models.families import weight_and_bias

TEXT = "The break statement may only occur syntactically nested in a for or while loop."


def test_the_premises_are_met() -> None:
    model = plm.load("tiny-relu")
    assert all(site.premises.met for site in model.sites)
    assert not plm.load("tiny-gpt2").site(0).premises.met


def test_the_codes_affine_map_reproduces_the_mlps_output() -> None:
    model = plm.load("tiny-relu")
    codes = plm.encode(model, [TEXT], keep=("u",))
    ids = torch.tensor([codes.tokens["token_id"].tolist()])
    for layer in range(model.n_layers):
        block = model.block(layer)
        seen: list[torch.Tensor] = []
        handle = block.down.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out[0].double()))
        with torch.no_grad():
            model.trunk(ids)
        handle.remove()
        W, b = (v.double().numpy() for v in weight_and_bias(block.pre["pre"]))
        W_out, b_out = (v.double().numpy() for v in weight_and_bias(block.down))
        z, u = codes.bits(layer), codes.activations("u", layer).astype(np.float64)
        for row in range(len(codes)):
            # From here on nothing but the code: J = W_out diag(z) W, a = W_out diag(z) b + b_out.
            J, a = (W_out * z[row]) @ W, (W_out * z[row]) @ b + b_out
            np.testing.assert_allclose(J @ u[row] + a, seen[0][row].numpy(), rtol=0, atol=2e-5)
            flipped = z[row] ^ (np.arange(len(b)) == np.abs(W @ u[row] + b).argmax())
            wrong = (W_out * flipped) @ (W @ u[row] + b) + b_out
            assert np.abs(wrong - seen[0][row].numpy()).max() > 1e-3
