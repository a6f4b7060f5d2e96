"""The pretend card is as strict as a card, and computes what the processor computes."""

from __future__ import annotations

import copy
import operator

import numpy as np
import pytest
import torch
from card import OnCard, card, on_card

DEVICE = card()
TWO_PLACES = "same device|doesn't match the device|'card' device type for generator"


def there(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=DEVICE)


def assigned(a, b):
    a[torch.arange(3)] = b


@pytest.mark.parametrize(
    "mixed",
    [
        operator.add,
        lambda a, b: b + a,
        lambda a, b: b.add_(a),
        lambda a, b: b.sum().add_(a.sum()),
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.stack([a.sum(), b.sum()]),
        lambda a, b: torch.where(b > 0, a, a),
        lambda a, _b: a.index_add_(0, torch.arange(3), a),
        lambda _a, b: b[torch.arange(3, device=DEVICE)],
        assigned,
        lambda a, b: torch.nn.functional.linear(a[None], b[None]),
        lambda _a, _b: torch.rand(3, device=DEVICE, generator=torch.Generator()),
        torch.equal,
    ],
)
def test_two_places_in_one_operation_are_refused(mixed):
    with pytest.raises(RuntimeError, match=TWO_PLACES):
        mixed(there(1, 2, 3), torch.ones(3))


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (lambda a: a * torch.tensor(2.0), [2, 4, 6]),
        (lambda a: a[torch.tensor([2, 0])], [3, 1]),
        (lambda a: a[torch.tensor([True, False, True])], [1, 3]),
        (lambda a: a.masked_fill(a > 1, torch.tensor(9.0)), [1, 9, 9]),
        (lambda a: torch.ones(3).copy_(a), [1, 2, 3]),
        (lambda a: a.clone().copy_(torch.ones(3)), [1, 1, 1]),
        (lambda a: torch.ones(3).to(a) + a, [2, 3, 4]),
        (lambda a: torch.arange(3, device=a.device) + a.new_zeros(3), [0, 1, 2]),
        (lambda a: torch.from_numpy(np.ones(3)).to(a.device, torch.float32) + a, [2, 3, 4]),
        (lambda a: copy.deepcopy(torch.nn.Parameter(a)), [1, 2, 3]),
    ],
)
def test_what_a_card_takes_is_taken(allowed, expected):
    assert allowed(there(1, 2, 3)).tolist() == expected


def test_numpy_reads_nothing_of_it_but_a_copy():
    for read in (lambda a: a.numpy(), np.asarray):
        with pytest.raises((RuntimeError, TypeError)):
            read(there(1, 2))
    back = there(1, 2).cpu()
    assert type(back) is torch.Tensor
    np.testing.assert_array_equal(back.numpy(), [1, 2])
    assert there(1).item() == 1.0


def test_derivatives_are_taken_on_it():
    x, v = there(1, 2, 3).requires_grad_(), there(1, 0, 1)
    (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (hv,) = torch.autograd.grad((g * v).sum(), x)
    _, jv = torch.func.jvp(lambda a: a**3, (x.detach(),), (v,))
    each = torch.func.vmap(torch.func.grad(lambda a: a**3))(x.detach())
    for found, expected in ((g.detach(), [3, 12, 27]), (hv, [6, 0, 18]), (jv, [3, 0, 27]), (each, [3, 12, 27])):
        assert isinstance(found, OnCard)
        assert found.tolist() == expected


def test_views_write_through_and_inference_mode_holds():
    a = there(1, 2, 3)
    with torch.inference_mode():
        a[:2] = 5
        seen = a.view(3, 1)[1:]
    assert a.tolist() == [5, 5, 3]
    assert seen.tolist() == [[5], [3]]


def test_a_model_lies_on_it_whole(model):
    found = on_card(model)
    assert found.device == DEVICE
    assert all(isinstance(one, OnCard) for one in (*found.hf.parameters(), *found.hf.buffers()))
    assert found.hf.transformer.wte.weight is found.hf.lm_head.weight
    assert model.device.type == "cpu"
    assert found.revision == model.revision
