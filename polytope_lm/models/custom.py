"""Sites that a user declares: any hook point with a weight and a bias."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site

if TYPE_CHECKING:
    from polytope_lm.models.loading import Model

_POINTS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "x",
    "ln2.hook_out": "u",
    "mlp.hook_pre": "h",
    "mlp.hook_pre_linear": "up",
    "mlp.hook_post": "post",
}


def declare(model: Model, hook: str, weight: Any, bias: Any = None) -> tuple[Site, Tensor, Tensor]:
    """Check and describe a declared site.

    Args:
        model: the model that has the hook point.
        hook: TransformerLens's canonical name, `blocks.LAYER.…`.
        weight: W, `[N, width of the activation]`.
        bias: b, `[N]`, or None.

    Returns:
        The site, its W and its b.

    Raises:
        PolytopeError: an unknown hook point, or shapes that do not fit.

    """
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found is None:
        raise PolytopeError(f"hook point {hook!r}: expected TransformerLens's name, such as blocks.4.hook_resid_post")
    layer = int(found[1])
    model.block(layer)
    if known_point(model, hook) is None and hook not in model.bridge.hook_dict:
        raise PolytopeError(f"{model.name} has no hook point {hook!r}; model.bridge.hook_dict lists them")
    W = torch.as_tensor(weight, dtype=torch.float32).detach()
    if W.ndim != 2:
        raise PolytopeError(f"{hook}: weight has shape {tuple(W.shape)}, expected [N, width of the activation]")
    b = torch.zeros(len(W)) if bias is None else torch.as_tensor(bias, dtype=torch.float32).detach()
    if b.shape != (len(W),):
        raise PolytopeError(f"{hook}: bias has shape {tuple(b.shape)}, expected [{len(W)}] as the weight has {len(W)} rows")
    premises = Premises("unknown", "none", bool((b != 0).any()), "none")
    return Site(layer, "custom", hook, W.shape[0], W.shape[1], premises), W, b


def known_point(model: Model, hook: str) -> str | None:
    """Return the trunk's own reading point for a hook name, or None where only the bridge has it."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    block = model.block(int(found[1])) if found else None
    if found is None or block is None or (found[2] == "hook_resid_mid" and (block.parallel or block.post_norm)):
        return None
    return _POINTS.get(found[2])


def read_bridge(model: Model, input_ids: Tensor, readers: dict[str, Any]) -> None:
    """Read hook points that only the bridge has, by one more forward pass through it.

    Args:
        model: the model.
        input_ids: `[B, S]`, padded on the right.
        readers: who reads which hook point.

    """

    def reader(name: str) -> Any:
        def hook(value: Tensor, hook: Any) -> None:  # noqa: ARG001
            readers[name](value.reshape(*input_ids.shape, -1))

        return hook

    if not model.causal:
        raise PolytopeError(f"{model.name}: declared hook points outside the MLP need a causal model")
    model.bridge.run_with_hooks(input_ids, return_type=None, fwd_hooks=[(name, reader(name)) for name in readers])
