"""A pretend graphics card, so that what runs where the model is gets tested on machines that have none.

Its tensors compute on the processor and are as strict as a real card's: an operation that mixes the two places is
refused, NumPy can't read them, and what leaves the card leaves it by a copy. PyTorch keeps one name of a device for
backends that are written outside it; the card takes that name, so that factories, `.to(...)`, autograd and
`torch.func` treat it as any device. What it can't tell: other kernels' rounding, memory, streams, pinned memory, and
branches that ask for CUDA by name.
"""

from __future__ import annotations

import copy
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import polytope_lm as plm

if TYPE_CHECKING:
    from typing import Self

    from polytope_lm.models.model import Model

_CPU = torch.device("cpu")
_COPIES = {"copy_", "_to_copy", "_copy_from"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # the indices may lie with the processor
_FILLS = {"fill", "fill_", "masked_fill", "masked_fill_", "index_fill", "index_fill_"}  # the number may, too
_KERNELS = ("empty.memory_format", "empty_strided", "copy_", "_copy_from", "_local_scalar_dense")


class OnCard(torch.Tensor):
    """A tensor on the pretend card; `elem` holds its numbers."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, elem.shape, strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
            device=torch.device("card", 0),
        )  # fmt: skip
        made.elem = elem
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, *args, **(kwargs or {}))

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["elem"], None  # so that `module.to(...)` swaps whole tensors

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> OnCard:
        return OnCard(inner["elem"])

    def __deepcopy__(self, memo: dict[int, Any]) -> OnCard:
        copy = OnCard(self.elem.detach().clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy._is_param = True
        memo[id(self)] = copy
        return copy

    def tolist(self) -> Any:
        return self.elem.tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnCard({self.elem!r})"


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation on the numbers, if a card would run it."""
    given = tree_leaves((args, kwargs))
    mine = [one for one in given if isinstance(one, OnCard)]
    device, name = kwargs.get("device"), func._schema.name.split("::")[1]
    there = bool(mine) if device is None else torch.device(device).type == "card"
    if mine and name not in _COPIES:
        _check(func, name, args, kwargs)
    if there and any(isinstance(one, torch.Generator) for one in given):
        raise RuntimeError(f"{name}: Expected a 'card' device type for generator but found 'cpu'")

    def plain(one: Any) -> Any:
        if isinstance(one, torch.device):
            return _CPU if one.type == "card" else one
        return one.elem if isinstance(one, OnCard) else one

    ours, named = tree_map(plain, args), tree_map(plain, kwargs)
    if name == "histc" and not ours[0].is_floating_point():  # a card counts whole numbers, too
        out = func(ours[0].double(), *ours[1:], **named).to(ours[0].dtype)
    else:
        out = func(*ours, **named)
    if name in {"copy_", "_copy_from"}:
        there = isinstance(args[0 if name == "copy_" else 1], OnCard)
    own = {id(one.elem): one for one in mine}
    # A view of a tensor that autograd knows is one, in inference mode as well.
    view = any(one.alias_info is not None for one in func._schema.returns)
    inference = torch.is_inference_mode_enabled() and not (view and not mine[0].is_inference())

    def wrapped(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or not there:
            return one
        return own[id(one)] if id(one) in own else OnCard(one)

    with torch.inference_mode(inference):
        return tree_map(wrapped, out)


def _check(func: Any, name: str, args: Any, kwargs: Any) -> None:
    """Refuse tensors in two places, but for those that a card takes: numbers in a tensor, and indices."""
    held = [(args[0], False), *((one, name in _INDEXED) for one in args[1:2]), *((one, False) for one in args[2:])]
    held += [(one, False) for one in kwargs.values()]
    numbers = torch.Tag.pointwise in func.tags or name in _FILLS or name in _INDEXED
    for part, free in held:
        for one in tree_leaves(part):
            if isinstance(one, torch.Tensor) and not isinstance(one, OnCard) and not free and (one.ndim or not numbers):
                raise RuntimeError(f"{name}: Expected all tensors to be on the same device, card:0 and cpu")
    written = zip(func._schema.arguments, args, strict=False)
    if any(spec.alias_info is not None and spec.alias_info.is_write and not isinstance(one, OnCard)
           for spec, one in written if isinstance(one, torch.Tensor)):  # fmt: skip
        raise RuntimeError(f"{name}: output with device cpu doesn't match the device card:0")


@cache
def card() -> torch.device:
    """Return the pretend card's device."""
    _setup_privateuseone_for_python_backend("card")
    library = torch.library.Library("aten", "IMPL")
    for kernel in _KERNELS:
        packet, _, overload = kernel.partition(".")
        function = getattr(getattr(torch.ops.aten, packet), overload or "default")
        library.impl(kernel, partial(_run, function), "PrivateUse1")
    _libraries.append(library)  # its kernels go when it goes
    return torch.device("card", 0)


_libraries: list[Any] = []


def on_card(model: Model) -> Model:
    """Return a copy of a model whose weights lie on the pretend card."""
    return plm.wrap(copy.deepcopy(model.hf).to(card()), model.tokenizer, name=model.name)
