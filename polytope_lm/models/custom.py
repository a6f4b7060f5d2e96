"""Sites that a user declares: any hook point with a weight and a bias."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site

if TYPE_CHECKING:
    from polytope_lm.models.hooks import Point
    from polytope_lm.models.loading import Model

_POINTS: dict[str, Point] = {
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
        PolytopeError: an unknown hook point, shapes that do not fit, or numbers that are
            not finite.

    """
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found is None:
        raise PolytopeError(
            f"hook point {hook!r}: expected TransformerLens's name, such as blocks.4.hook_resid_post"
        )
    layer = int(found[1])
    model.block(layer)
    if any(site.hook == hook for site, _, _ in model.custom):
        raise PolytopeError(
            f"{model.name}: {hook!r} has a declared site already; declare the other one on the model without "
            f"it"
        )
    if known_point(model, hook) is None:
        _check_bridge(model, hook)
    W = _numbers(hook, "weight", weight)
    if W.ndim != 2:
        raise PolytopeError(
            f"{hook}: weight has shape {tuple(W.shape)}, expected [N, width of the activation]"
        )
    b = torch.zeros(len(W)) if bias is None else _numbers(hook, "bias", bias)
    if b.shape != (len(W),):
        raise PolytopeError(
            f"{hook}: bias has shape {tuple(b.shape)}, expected [{len(W)}] as the weight has {len(W)} rows"
        )
    expected = _width(model, layer, known_point(model, hook))
    if expected not in {None, W.shape[1]}:
        raise PolytopeError(f"{hook}: weight takes {W.shape[1]} values, the activation there has {expected}")
    premises = Premises("unknown", "none", bool((b != 0).any()), "none")
    return Site(layer, "custom", hook, W.shape[0], W.shape[1], premises), W, b


def _numbers(hook: str, what: str, value: Any) -> Tensor:
    """Read a weight or a bias as float32; refuse what is no array of finite numbers."""
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise PolytopeError(
            f"{hook}: {what} of type {type(value).__name__} is no array of numbers: give a tensor or an array"
        ) from error
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise PolytopeError(
            f"{hook}: {bad} of {tensor.numel()} values of {what} are NaN or infinite: mend it"
        )
    return tensor


def weights_digest(weight: Tensor, bias: Tensor) -> str:
    """Hash a declared site's numbers, so that two sites of one hook point can't share a store."""
    digest = hashlib.sha256()
    for tensor in (weight, bias):
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_bridge(model: Model, hook: str) -> None:
    """Make sure that the bridge has a hook point, and that it can be read there."""
    if not model.causal:
        raise PolytopeError(
            f"{model.name}: declared hook points outside the MLP need a causal model; {hook!r} is outside"
        )
    if hook not in model.bridge.hook_dict:
        raise PolytopeError(f"{model.name} has no hook point {hook!r}; model.bridge.hook_dict lists them")


def _width(model: Model, layer: int, point: str | None) -> int | None:
    """Return how wide a known point is, None for a hook point that only the bridge has."""
    site = model.site(layer)
    return None if point is None else site.width if point in {"h", "up", "post"} else site.d_model


def known_point(model: Model, hook: str) -> Point | None:
    """Return the trunk's own reading point for a hook name, or None where only the bridge has it."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    block = model.block(int(found[1])) if found else None
    if found is None or block is None:
        return None
    if found[2] == "hook_resid_mid" and (block.parallel or block.post_norm):
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
        def hook(value: Tensor, hook: Any) -> None:  # noqa: ARG001 - TransformerLens passes it by name
            readers[name](value.reshape(*input_ids.shape, -1))

        return hook

    model.bridge.run_with_hooks(
        input_ids, return_type=None, fwd_hooks=[(name, reader(name)) for name in readers]
    )
