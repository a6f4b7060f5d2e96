"""Norms and variations of an MLP's Jacobian against autograd's matrices in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm import PolytopeError
from polytope_lm.geometry.jacobian import MlpJacobian


def mlps(family, request):
    model = request.getfixturevalue(family)
    blocks = model.hf.transformer.h if family == "model" else model.hf.model.layers
    return model, blocks[1].mlp


@pytest.mark.parametrize("family", ["model", "gated"])
def test_norm_and_variation_are_those_of_the_matrices(family, request):
    model, mlp = mlps(family, request)
    u = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    jacobian = MlpJacobian(model, 1)
    matrices = torch.stack(
        [torch.autograd.functional.jacobian(lambda v: mlp(v[None, None])[0, 0], one) for one in u.flatten(0, 1)]
    ).reshape(2, 5, 24, 24)
    diagonals = jacobian.diagonal(u)
    torch.testing.assert_close(jacobian.norm(diagonals).float(), matrices.norm(dim=(2, 3)), rtol=1e-4, atol=1e-4)
    steps = matrices.diff(dim=1).norm(dim=(2, 3)).sum(1)
    torch.testing.assert_close(jacobian.variation(diagonals).float(), steps, rtol=1e-4, atol=1e-4)


def test_behind_relus_a_line_varies_by_the_weights_of_the_neurons_that_it_crosses():
    model = plm.load("tiny-relu")
    u = torch.as_tensor(plm.encode(model, "The river bank", layers=[1], keep=("u",)).activations("u"))
    line = u[0] + torch.linspace(0, 1, 400)[:, None] * (u[1] - u[0])
    jacobian = MlpJacobian(model, 1)
    weight, bias = (
        part.detach() for part in (model.hf.transformer.h[1].mlp.c_fc.weight, model.hf.transformer.h[1].mlp.c_fc.bias)
    )
    out = model.hf.transformer.h[1].mlp.c_proj.weight.detach()
    crossed = ((u[0] @ weight + bias) > 0) != ((u[1] @ weight + bias) > 0)
    each = out.norm(dim=1) * weight.norm(dim=0)
    variation = float(jacobian.variation(jacobian.diagonal(line)))
    assert crossed.sum() > 20
    assert 0.8 * float(each[crossed].sum()) < variation <= float(each[crossed].sum()) * (1 + 1e-4)  # some share a step
    inside = u[:1] * torch.tensor([[1.0], [1.0 + 1e-6]])
    assert float(jacobian.variation(jacobian.diagonal(inside))) == 0


def test_it_is_taken_inside_a_pass_too(model):
    jacobian, u = MlpJacobian(model, 0), torch.ones(1, 24)
    with torch.inference_mode():
        inside = jacobian.diagonal(u.clone())
    np.testing.assert_array_equal(inside.numpy(), jacobian.diagonal(u).numpy())


def test_a_mixture_has_no_mlp_of_its_own():
    with pytest.raises(PolytopeError, match=r"tiny-moe, layer 0.*mixture"):
        MlpJacobian(plm.load("tiny-moe"), 0)
