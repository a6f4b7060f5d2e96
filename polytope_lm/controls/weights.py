"""Isolates learning from architecture: the same model with its weights permuted, or as it began.

- *permuted*: the entries of every matrix, embeddings too, in a random order; norms and biases stay. Each
  matrix keeps its distribution of weights, heavy tails and scale, and loses everything it learned.
- *untrained*: the same configuration, initialised anew as the architecture does it. The weaker control:
  neighbours of an untrained model nearly all share a document.

For two models that differ in their weights:

- *nudged*: every parameter changed at random, by as much as it differs between the two (Frobenius norm).
- *rounded*: the same weights in another number format.

All are models like any other; `recaptured` reads them at the tokens, sites and settings of codes that there
are, so that a comparison differs in the weights alone.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.codes.capture import in_codes
from polytope_lm.codes.plan import make_plan
from polytope_lm.codes.reread import arrays, windowing
from polytope_lm.errors import PolytopeError
from polytope_lm.models.loading import DTYPES, wrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from polytope_lm.codes.codes import Codes, TokenCodes
    from polytope_lm.models.model import Model

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAME = ("tokens", "seed", "all_pieces", "max_length", "min_context", "batch_tokens", "keep_dtype")


def permuted(model: Model, seed: int = 0) -> Model:
    """Return a copy of a model with the entries of every matrix permuted.

    Tied matrices stay tied; parameters of one dimension (norms, biases) stay as they are.

    Args:
        model: from `load` or `wrap`; it is copied, so there must be memory for a second one.
        seed: of the permutations.

    Raises:
        PolytopeError: a model with declared sites, or one inside a `TransformerBridge`.

    """
    _check_plain(model)
    hf = copy.deepcopy(model.hf)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                parameter.copy_(_shuffled(parameter, rng))
    return wrap(hf, model.tokenizer, name=f"{model.name} (weights permuted, seed {seed})")


def untrained(model: Model, seed: int = 0) -> Model:
    """Return a model of the same configuration, initialised anew by its own architecture's rule.

    Args:
        model: from `load` or `wrap`; its dtype, device and attention stay.
        seed: of the initialisation; torch's global generator is left as it was.

    Raises:
        PolytopeError: a model with declared sites, one inside a `TransformerBridge`, or one without a
            configuration to build it from.

    """
    _check_plain(model)
    config = getattr(model.hf, "config", None)
    if config is None:
        raise PolytopeError(
            f"{model.name}: {model.family} has no configuration to initialise it from; use permuted(model)"
        )
    build: Any = type(model.hf)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf: nn.Module = build(copy.deepcopy(config))
    hf = hf.to(device=model.device, dtype=model.dtype).eval()
    return wrap(hf, model.tokenizer, name=f"{model.name} (untrained, seed {seed})")


def norms_of_change(a: Model, b: Model) -> dict[str, float]:
    """Return by parameter the Frobenius norm of `W_b - W_a`, computed in float32.

    Raises:
        PolytopeError: a parameter that only one of them has, or whose shapes differ.

    """
    of_a, of_b = dict(a.hf.named_parameters()), dict(b.hf.named_parameters())
    for name in {**of_a, **of_b}:
        shapes = [list(of[name].shape) if name in of else "none" for of in (of_a, of_b)]
        if shapes[0] != shapes[1]:
            raise PolytopeError(
                f"parameter {name} has shape {shapes[0]} in {a.name} and {shapes[1]} in {b.name}, so there is no "
                "change of the same norm: leave out the control 'weights'"
            )
    with torch.no_grad():
        pairs = ((name, weight.float().cpu(), of_b[name].float().cpu()) for name, weight in of_a.items())
        return {name: float(torch.linalg.vector_norm(other - weight)) for name, weight, other in pairs}


def nudged(model: Model, norms: Mapping[str, float], seed: int = 0) -> Model:
    """Return a copy of a model with Gaussian noise added to every parameter, of exactly the norm given for it.

    Args:
        model: from `load` or `wrap`; it is copied, so there must be memory for a second one.
        norms: Frobenius norm by parameter, as `norms_of_change` returns them.
        seed: of the noise.

    Raises:
        PolytopeError: a model with declared sites, or one inside a `TransformerBridge`.

    """
    _check_plain(model)
    hf = copy.deepcopy(model.hf)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            noise = torch.from_numpy(rng.standard_normal(parameter.numel(), np.float32)).reshape(parameter.shape)
            noise *= norms[name] / max(float(torch.linalg.vector_norm(noise)), 1e-30)
            parameter.copy_(parameter.float() + noise.to(parameter.device))
    made = wrap(hf, model.tokenizer, name=f"{model.name} (weights changed at random, seed {seed})")
    return replace(made, bos=model.bos)


def rounded(model: Model, dtype: str) -> Model:
    """Return a copy of a model in another number format.

    Args:
        model: from `load` or `wrap`; it is copied.
        dtype: `float32`, `float16`, `bfloat16` or `float64`.

    Raises:
        PolytopeError: no such format, or a model as `nudged` refuses.

    """
    _check_plain(model)
    if dtype not in DTYPES:
        raise PolytopeError(f"unknown dtype {dtype!r}; choose among {', '.join(DTYPES)}")
    hf: Any = copy.deepcopy(model.hf)
    made = wrap(hf.to(DTYPES[dtype]), model.tokenizer, name=f"{model.name} (in {dtype})")
    return replace(made, bos=model.bos)


def recaptured(codes: TokenCodes, model: Model, *, keep: Sequence[str] | None = None) -> Codes:
    """Read a control's codes at the tokens, sites and settings of codes that there are, in memory.

    Args:
        codes: codes of the real model, as `encode`, `capture` or `open_store` gave them; their labels are
            carried over.
        model: from `permuted` or `untrained`, or any model with the same tokenizer and sites.
        keep: activations to keep beside the bits; by default those that `codes` has.

    Raises:
        PolytopeError: codes that no capture made or that hold no token, another tokenizer (other special
            tokens, or tokens that do not match), or a model without these sites.

    """
    was: Mapping[str, Any] = codes.provenance
    if "special_tokens" not in was or not len(codes):
        raise PolytopeError(f"{len(codes)} tokens of {was.get('model')!r} were not captured; give codes from a capture")
    sites = [part for site in codes.sites for part in site.components]
    plan = make_plan(
        model,
        layers=tuple(dict.fromkeys(site.layer for site in sites)),
        kind=sites[0].name,
        keep=codes.kept if keep is None else keep,
        bos=windowing(codes, model).bos,
        **{name: was[name] for name in _SAME},
    )
    read = arrays(codes, plan.wanted, model)
    found = in_codes(plan, read, codes.tokens.reset_index(drop=True), codes.ids, codes.texts)
    return found if found.layers == codes.layers else found.joined().select(np.arange(len(found)))


def _check_plain(model: Model) -> None:
    if model.lens is not None:
        raise PolytopeError(
            f"{model.name} is inside a TransformerBridge; load the transformers model itself for this control"
        )
    if model.custom:
        raise PolytopeError(
            f"{model.name} has declared sites ({model.custom[0][0].hook}), whose weights are not its own; "
            "make the control of the plain model and declare sites on it"
        )


def _shuffled(parameter: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the entries in a random order, through integers of their width: numpy has no bfloat16."""
    flat = parameter.detach().cpu().contiguous().clone().reshape(-1)
    rng.shuffle(flat.view(_INTEGERS[flat.element_size()]).numpy())
    return flat.reshape(parameter.shape).to(parameter.device)
