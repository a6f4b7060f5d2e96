"""The secant estimate: the gradient of the model with what makes it curved held at its value.

RelP (Jafari et al., "RelP: Faithful and Efficient Circuit Discovery via Relevance Patching", 2508.21258) gets
its coefficients from the same rules:

- *soft codes*: `act(h)` is `p h` with `p = act(h)/h` held; in a gated MLP each of the two factors of
  `act(g) up` gets half of the product (the rule for products): `act(g)/g . up` held times `g/2`, and `act(g)`
  held times `up/2`;
- *norm scales*: a norm is linear, its `sigma` held;
- *attention patterns*: held, so that only values carry a change.

The values of the forward pass stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from polytope_lm.errors import PolytopeError
from polytope_lm.models.derivatives import Onward
from polytope_lm.models.gates import activation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float

    from polytope_lm.models.families import Block
    from polytope_lm.models.model import Model

_SCALES = {torch.rsqrt, Tensor.rsqrt, Tensor.rsqrt_, torch.sqrt, Tensor.sqrt}
_PATTERNS = {torch.softmax, Tensor.softmax, functional.softmax}


@dataclass
class Held:
    """How many of each were held in one pass."""

    codes: int = 0
    norms: int = 0
    patterns: int = 0


def secant_gradient(onward: Onward, of: Callable[[Tensor], Tensor]) -> tuple[Float[Tensor, " D"], Held]:
    """Return the secant's gradient of a number at the clean vector, and what was held for it.

    Raises:
        PolytopeError: a block's norm or attention whose formula was not recognised, so that nothing was held.

    """
    with _holding(onward.model, onward.layer) as held:
        g, _, _ = onward.gradient(of)
    norms = any(block.norm_kind != "none" for block in onward.model.blocks[onward.layer + 1 :])
    if norms and not held.norms:
        raise PolytopeError(f"{onward.model.name}: no norm's scale could be held: no secant estimate here")
    return g[0], held


@contextmanager
def _holding(model: Model, layer: int) -> Iterator[Held]:
    held = Held()
    with ExitStack() as stack:
        stack.enter_context(model.alone())
        for block in model.blocks[layer:]:
            stack.enter_context(_soft_code_held(block, held))
        stack.enter_context(_Mode(held))
        yield held


class _Mode(TorchFunctionMode):
    """Holds norm scales and attention patterns wherever they are computed."""

    def __init__(self, held: Held) -> None:
        super().__init__()
        self.held = held

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in {functional.layer_norm, functional.rms_norm}:
            self.held.norms += 1
            return _norm(func is functional.layer_norm, *args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self.held.patterns += 1
            names = ("query", "key")
            args = (*(each.detach() for each in args[:2]), *args[2:])
            kwargs = {name: each.detach() if name in names else each for name, each in kwargs.items()}
        out = func(*args, **kwargs)
        if func in _SCALES:
            self.held.norms += 1
            return out.detach()
        if func in _PATTERNS:
            self.held.patterns += 1
            return out.detach()
        return out


def _norm(
    centred: bool,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Return a norm's output with its scale held."""
    axes = tuple(range(-len(tuple(normalized_shape)), 0))
    x = x - x.mean(axes, keepdim=True) if centred else x
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    out = x * (x.square().mean(axes, keepdim=True) + eps).rsqrt().detach()
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@contextmanager
def _soft_code_held(block: Block, held: Held) -> Iterator[None]:
    """Put `p h` in the place of `act(h)` while the context lasts."""
    read: dict[str, Tensor] = {}
    act = activation(block)

    def on_pre(kind: str) -> Any:
        return lambda _m, _args, out: read.__setitem__(kind, out[..., block.columns(kind)])

    def on_down(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        held.codes += 1
        gated = "gate" in block.pre
        h = read["gate" if gated else next(iter(block.pre))]
        with torch.no_grad():
            value = act(h)
            p = torch.where(h == 0, torch.zeros_like(h), value / h)
        if not gated:
            return (p * h, *args[1:])
        up = read["up"]
        return ((p * up.detach()) * h / 2 + value * up / 2, *args[1:])

    with ExitStack() as stack:
        for kind, module in block.pre.items():
            stack.callback(module.register_forward_hook(on_pre(kind)).remove)
        stack.callback(block.down.register_forward_pre_hook(on_down).remove)
        yield
