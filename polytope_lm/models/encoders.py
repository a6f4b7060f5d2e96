"""Encoders of sparse autoencoders and transcoders as sites: which features are on is a code like any other.

A ReLU encoder's features are `a = ReLU((x - b_dec) W_enc + b_enc)`; a transcoder's lack `b_dec`. Feature i is on
iff `h_i > 0` with `W = W_enc^T`, `b = b_enc - b_dec W_enc`: the encoder is piecewise affine, its code names the region.
A JumpReLU feature is on iff its pre-activation exceeds `max(threshold, 0)`, which is taken from `b`: inside a region
the encoder is affine too, but it jumps at the boundaries. Activations kept as `h` are counted from there.

Where a model was read with centred writing weights, the encoder got `C x`, x without the mean of its coordinates:
`C` is folded into W. `W_enc [d_in, d_sae]` is taken as SAELens stores it, a directory as its `save_model` writes it
(`cfg.json`, `sae_weights.safetensors`). TopK encoders have no such code: what is on depends on the other features.

Sources: Bricken et al., "Towards Monosemanticity" (2023); Rajamanoharan et al., "Jumping Ahead" (2024, JumpReLU);
Dunefsky et al., "Transcoders Find Interpretable LLM Feature Circuits" (2024); SAELens 6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from polytope_lm import files
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.sites import Premises

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_AFFINE = {"standard": "relu", "jumprelu": "jumprelu", "transcoder": "relu", "skip_transcoder": "relu",
           "jumprelu_transcoder": "jumprelu", "jumprelu_skip_transcoder": "jumprelu"}  # fmt: skip
_ARRAYS = ("W_enc", "b_enc", "b_dec", "threshold")
_UNCHANGED = {"", "none", "None", None, False}
# What TransformerLens may have done to the weights: inside blocks there are then other vectors.
_PROCESSED = ("fold_ln", "fold_value_biases", "refactor_factored_attn_matrices")
_WRITTEN = re.compile(r"hook_(resid_\w+|mlp_out|attn_out)$")


@dataclass(frozen=True)
class Encoder:
    """What `Model.with_encoder` declares.

    Attributes:
        hook: TransformerLens's name of the hook point that it reads.
        weight: W, `[d_sae, d_in]`.
        bias: b, `[d_sae]`.
        premises: piecewise affine, with biases or without.
        bos: whether it was trained on texts with BOS before them; None where that isn't said.

    """

    hook: str
    weight: Tensor
    bias: Tensor
    premises: Premises
    bos: bool | None = None


def read_encoder(source: Any, hook: str | None = None) -> Encoder:
    """Read an encoder.

    Args:
        source: a directory as SAELens writes it, a loaded SAELens encoder, or a mapping of its arrays: `W_enc`
            `[d_in, d_sae]`, and where there are any `b_enc`, `b_dec` (only if it is taken from the input), `threshold`.
        hook: the hook point; by default the configuration's.

    Raises:
        PolytopeError: no encoder, one without a sign code, or arrays that don't fit together.

    """
    if isinstance(source, (str, Path)):
        name, config, arrays = _directory(files.expand(source, "encoder"))
    elif isinstance(source, Mapping):
        name, config, arrays = "encoder", {}, dict(source)
        if unknown := [key for key in arrays if key not in _ARRAYS]:
            raise PolytopeError(f"encoder: unknown array {brief(unknown[0])}; give {', '.join(_ARRAYS)}")
    elif hasattr(source, "W_enc") and hasattr(getattr(source, "cfg", None), "to_dict"):
        name, config = type(source).__name__, source.cfg.to_dict()
        arrays = {key: getattr(source, key) for key in _ARRAYS if getattr(source, key, None) is not None}
    else:
        raise PolytopeError(
            f"encoder = {brief(source)}: give a directory that SAELens wrote, its encoder, or a mapping with W_enc"
        )
    settings = {**config, **(config.get("metadata") or {})}
    settings |= settings.get("model_from_pretrained_kwargs") or {}
    hook = hook or settings.get("hook_name") or settings.get("hook_point")
    if not isinstance(hook, str):
        raise PolytopeError(f"{name}: no hook point is said; give hook=, such as blocks.4.hook_resid_post")
    _check_settings(name, hook, settings)
    architecture = config.get("architecture") or ("jumprelu" if "threshold" in arrays else "standard")
    if settings.get("apply_b_dec_to_input") is False or "transcoder" in architecture:
        arrays.pop("b_dec", None)
    W, b = _folded(name, arrays)
    if settings.get("center_writing_weights") and _WRITTEN.search(hook):
        W = W - W.mean(1, keepdim=True)
    premises = Premises("piecewise affine", _AFFINE[architecture], bool((b != 0).any()), "none")
    bos = settings.get("prepend_bos")
    return Encoder(hook, W, b, premises, bos if isinstance(bos, bool) else None)


def _directory(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Read a directory's configuration and arrays."""
    name = path.name
    if not (path / CONFIG).is_file():
        raise PolytopeError(f"{path}: no {CONFIG} here; give a directory that SAELens's save_model wrote")
    config = files.read_json(path / CONFIG, "encoder's configuration", files.MEGABYTE)
    if not isinstance(config, dict) or not all(
        isinstance(config.get(key) or {}, dict) for key in ("metadata", "model_from_pretrained_kwargs")
    ):
        raise PolytopeError(f"{path / CONFIG}: no configuration of an encoder; save it again")
    files.open_regular(path / WEIGHTS, "encoder's weights").close()
    try:
        loaded = load_file(path / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise PolytopeError(f"{path / WEIGHTS}: no safetensors ({brief(str(error))}); save it again") from None
    # SAELens stores the scale of features beside the arrays of some older encoders; one that is 1 changes nothing.
    scale = loaded.get("scaling_factor")
    if scale is not None and bool((scale != 1).any()):
        raise PolytopeError(f"{path / WEIGHTS}: a scaling_factor other than 1; fold it into the weights first")
    return name, config, {key: loaded[key] for key in _ARRAYS if key in loaded}


def _check_settings(name: str, hook: str, settings: Mapping[str, Any]) -> None:
    """Refuse what is no sign of an affine function of the hook point."""
    architecture = settings.get("architecture") or "standard"
    if architecture not in _AFFINE:
        raise PolytopeError(
            f"{name}: architecture {brief(architecture)} has no code of signs (its features depend on each other or on "
            f"two branches); read are {', '.join(_AFFINE)}"
        )
    if (norm := settings.get("normalize_activations")) not in _UNCHANGED:
        raise PolytopeError(
            f"{name}: normalize_activations = {brief(norm)}: its input is scaled before W_enc; fold the scale into the "
            "weights first (SAELens: fold_activation_norm_scaling_factor)"
        )
    if (activation := settings.get("activation_fn") or settings.get("activation_fn_str") or "relu") != "relu":
        raise PolytopeError(f"{name}: activation {brief(activation)}: read are encoders with ReLU or JumpReLU")
    if (head := settings.get("hook_head_index")) is not None:
        raise PolytopeError(f"{name}: hook_head_index = {brief(head)}: encoders of one head are not read")
    processed = [key for key in _PROCESSED if settings.get(key)]
    if processed and not _WRITTEN.search(hook):
        raise PolytopeError(
            f"{name}: it was trained on weights with {processed[0]}, whose {hook} is another vector than this model's"
        )


def _folded(name: str, arrays: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return W `[d_sae, d_in]` and b `[d_sae]` with `b_dec` and the thresholds in b; refuse what does not fit."""
    if "W_enc" not in arrays:
        raise PolytopeError(f"{name}: no W_enc among its arrays ({', '.join(arrays) or 'none'})")
    numbers = {key: numbers_of(name, key, value) for key, value in arrays.items()}
    W = numbers["W_enc"]
    if W.dim() != 2:
        raise PolytopeError(f"{name}: W_enc has shape {list(W.shape)}, expected [d_in, d_sae]")
    d_in, d_sae = W.shape
    for key, length in (("b_enc", d_sae), ("threshold", d_sae), ("b_dec", d_in)):
        if key in numbers and numbers[key].shape != (length,):
            shape, other = list(numbers[key].shape), d_in if length == d_sae else d_sae
            turned = "; W_enc is turned round: give W_enc.T" if shape == [other] else ""
            raise PolytopeError(
                f"{name}: W_enc is [{d_in}, {d_sae}], as [d_in, d_sae], and {key} has shape {shape} for "
                f"[{length}]{turned}"
            )
    W = W.double()
    b = numbers["b_enc"].double() if "b_enc" in numbers else torch.zeros(d_sae, dtype=torch.float64)
    if "b_dec" in numbers:
        b = b - numbers["b_dec"].double() @ W
    if "threshold" in numbers:
        b = b - numbers["threshold"].double().clamp(min=0)
    return W.T.float().contiguous(), b.float()


def numbers_of(place: str, what: str, value: Any) -> Tensor:
    """Read a weight or a bias as float32; refuse what is no array of finite numbers."""
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise PolytopeError(
            f"{place}: {what} of type {type(value).__name__} is no array of numbers: give a tensor or an array"
        ) from error
    if bad := int((~torch.isfinite(tensor)).sum()):
        raise PolytopeError(f"{place}: {bad} of {tensor.numel()} values of {what} are NaN or infinite: mend it")
    return tensor
