"""Writing what gates an MLP: its code held fixed, imposed or flipped, or `post` written anew, while a context lasts.

`h` are the pre-activations whose sign is the code (of a gated MLP the gate's, `g`), `post` the down projection's input:

| context | what a pass inside it computes |
|---|---|
| `model.imposing(codes)` | `h'_i = abs(h_i) (2 z_i - 1)`: magnitudes are the pass's own, the sides are the codes' |
| `model.flipping(neurons)` | `h'_i = -h_i` for these neurons |
| `model.freezing(codes)` | `post_i = z_i h_i`, gated `z_i g_i up_i`: gates no longer depend on the input |

A token's own code imposed is the identity, bit for bit. Its own code frozen is the identity bit for bit behind ReLUs,
where the affine map of that polytope is left; of a smooth activation give the soft code `p = act(h)/h`
(`codes.soft.probability`), whose secant is the identity at the token up to rounding.

A context has the model alone: other threads wait. It restores the model whatever happens inside. What the library reads
inside (`plm.encode`, paths, tests) is read under it, and says so in its provenance. A `TransformerBridge` that
`model.bridge` built is a copy and isn't touched; one that the user wrapped is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.piecewise import function_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from jaxtyping import Float, Int64

    from polytope_lm.models.families import Block

_active: WeakKeyDictionary[nn.Module, list[str]] = WeakKeyDictionary()
"""What is going on in each trunk, for the provenance of what is read meanwhile."""


_frozen: WeakKeyDictionary[nn.Module, list[int]] = WeakKeyDictionary()
"""The layers of each trunk whose gates are frozen: they have read `h` before a context inside could write it."""


class Gated(Protocol):
    """What a model has that these contexts need."""

    @property
    def name(self) -> str:
        """The name that it was loaded by."""

    @property
    def trunk(self) -> nn.Module:
        """The model without its head."""

    def alone(self) -> AbstractContextManager[None]:
        """Have the model alone."""

    def block(self, layer: int) -> Block:
        """Return one block's parts."""


@dataclass(frozen=True, eq=False)
class Mlp:
    """What one layer's MLP has in a pass.

    Attributes:
        u: its input.
        h: the pre-activations; of a gated MLP the gate's.
        up: a gated MLP's other branch.
        post: the down projection's input.

    """

    u: Float[Tensor, "... D"]
    h: Float[Tensor, "... N"]
    up: Float[Tensor, "... N"] | None
    post: Float[Tensor, "... N"]


Change = Callable[[int, Mlp], Tensor]
Output = Callable[[int, Mlp, Tensor], Tensor]


def under_way(trunk: nn.Module) -> str:
    """Say which contexts of this module a trunk is in; nothing if in none."""
    return ", ".join(_active.get(trunk, ()))


def _dense(model: Gated, layer: int) -> Block:
    """Return a block with an MLP of its own; refuse a mixture of experts, whose router's choice is only read."""
    block = model.block(layer)
    if block.routing is not None:
        raise PolytopeError(
            f"{model.name}, layer {layer}: a mixture of experts has no neurons to write, its router's choice is read "
            "only; choose the layer of a dense MLP"
        )
    return block


def activation(block: Block) -> Callable[[Tensor], Tensor]:
    """Return a block's activation as a function of tensors: its module's own, else the one of its name.

    Raises:
        PolytopeError: none of that name.

    """
    if block.act is not None:
        return function_of(block.act)
    try:
        found = ACT2FN[block.activation]
    except (KeyError, TypeError):
        raise PolytopeError(
            f"activation {block.activation!r} has no formula here: give a model with gelu, silu, relu, ..."
        ) from None
    return found  # type: ignore[no-any-return]


def branches(block: Block, u: Float[Tensor, "... D"]) -> dict[str, Tensor]:
    """Return what a block's maps make of inputs, by kind; hooks on them, ours too, are not called."""
    return {kind: module.forward(u)[..., block.columns(kind)] for kind, module in block.pre.items()}


def mlp_of(block: Block, u: Float[Tensor, "... D"]) -> Mlp:
    """Return what a block's MLP makes of inputs, by its own modules and its activation; hooks are not called."""
    maps = branches(block, u)
    h, up = maps["gate" if "gate" in maps else "pre"], maps.get("up")
    on = activation(block)(h)
    return Mlp(u, h, up, on if up is None else on * up)


@contextmanager
def rewriting(
    model: Gated, layers: Sequence[int], change: Change | None, output: Output | None = None, *, said: str = "rewriting"
) -> Iterator[None]:
    """Let `change` write `post`, and `output` the down projection's output, of some layers while the context lasts.

    `change` gets the layer and its `Mlp`, `[B, S, width]` whatever the family flattens, and returns `post`; `output`
    gets both, `post` as `change` left it, with the output, `[B, S, D]`, and returns that.
    """
    with ExitStack() as stack:
        stack.enter_context(model.alone())
        stack.enter_context(_told(model, said))
        for layer in dict.fromkeys(layers):
            _Rewriter(_dense(model, layer), int(layer), change, output).enter(stack)
        yield


@dataclass(eq=False)
class _Rewriter:
    """The hooks of one layer, and what they saw in the pass under way."""

    block: Block
    layer: int
    change: Change | None
    output: Output | None

    def enter(self, stack: ExitStack) -> None:
        self.maps: dict[str, Tensor] = {}
        block = self.block
        hooks = [block.module.register_forward_pre_hook(self.saw_block, with_kwargs=True)]
        for kind, module in block.pre.items():
            hooks.append(module.register_forward_hook(self._reader(kind)))
        hooks.append(block.down.register_forward_pre_hook(self.write_post))
        if self.output is not None:
            hooks.append(block.down.register_forward_hook(self.write_output))
        for hook in hooks:
            stack.callback(hook.remove)

    def saw_block(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.shape = (args[0] if args else kwargs["hidden_states"]).shape[-3:-1]

    def _reader(self, kind: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def read(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            self.maps["u"] = args[0].reshape(*self.shape, -1)
            self.maps[kind] = out[..., self.block.columns(kind)].reshape(*self.shape, -1)

        return read

    def write_post(self, _module: nn.Module, args: tuple[Any, ...]) -> Any:
        post = args[0].reshape(*self.shape, -1)
        h = self.maps.get("gate", self.maps.get("pre"))
        assert h is not None  # noqa: S101 - a down projection comes after them
        self.mlp = Mlp(self.maps["u"], h, self.maps.get("up"), post)
        if self.change is None:
            return None
        post = self.change(self.layer, self.mlp)
        self.mlp = Mlp(self.mlp.u, self.mlp.h, self.mlp.up, post)
        return (post.reshape(args[0].shape), *args[1:])

    def write_output(self, _module: nn.Module, _args: Any, out: Tensor) -> Tensor:
        assert self.output is not None  # noqa: S101 - it is hooked only then
        found = self.output(self.layer, self.mlp, out.reshape(*self.shape, -1))
        return found.reshape(out.shape).to(out.dtype).contiguous()


@contextmanager
def _told(model: Gated, said: str) -> Iterator[None]:
    stated = _active.setdefault(model.trunk, [])
    stated.append(said)
    try:
        yield
    finally:
        stated.remove(said)


@dataclass(frozen=True, eq=False)
class _Given:
    """One layer's codes: of one branch, at some positions of a sequence.

    Attributes:
        kind: `pre`, `gate` or `up`.
        values: bits, or the soft code's numbers.
        positions: of each row in the sequence; None: each row at its own place, and the pass has as many.
        everywhere: whatever the position, so that a pass may go on from a cache.

    """

    kind: str
    values: Tensor
    positions: Int64[np.ndarray, " R"] | None
    everywhere: bool = False

    def laid(self, like: Tensor, name: str, layer: int) -> tuple[Tensor, Tensor]:
        """Return the values at each position of `[B, S, N]`, and which positions have one, `[S, 1]`."""
        length = like.shape[-2]
        rows, where = self.values.to(like.device), self.positions
        if where is None:
            where = np.arange(rows.shape[-2])
            if len(where) != length:
                raise PolytopeError(
                    f"{name}, layer {layer}: codes of {len(where)} positions, but this pass has {length}; run the "
                    "whole sequence at once, without a cache"
                )
        if where.max() >= length:
            raise PolytopeError(
                f"{name}, layer {layer}: a code for position {int(where.max())}, but this pass has {length} "
                "positions; run the whole sequence at once, without a cache"
            )
        if rows.dim() == 3 and rows.shape[0] not in {1, like.shape[0]}:
            raise PolytopeError(f"{name}, layer {layer}: codes of {rows.shape[0]} sequences, a pass of {like.shape[0]}")
        place = torch.as_tensor(where, device=like.device)
        out = torch.zeros(*rows.shape[:-2], length, rows.shape[-1], dtype=rows.dtype, device=like.device)
        there = torch.zeros(length, 1, dtype=torch.bool, device=like.device)
        out[..., place, :] = rows
        there[place] = True
        return out, there


@contextmanager
def imposing(model: Gated, codes: Any, positions: Any = None) -> Iterator[None]:
    """Give pre-activations the codes' sides while the context lasts: see `Model.imposing`."""
    given = _given(model, codes, positions, soft=False)

    def change(layer: int, one: _Given, h: Tensor) -> Tensor:
        on, there = one.laid(h, model.name, layer)
        return torch.where(((h > 0) == on) | ~there, h, -h)

    with _on_pre(model, given, change, "imposing codes"):
        yield


@contextmanager
def flipping(model: Gated, neurons: Any, positions: Any = None) -> Iterator[None]:
    """Change the sign of some neurons' pre-activations while the context lasts: see `Model.flipping`."""
    chosen = _neurons(model, neurons)
    where = None if positions is None else _positions(positions)
    given = {
        layer: [_Given("pre" if "pre" in model.block(layer).pre else "gate", which, where, everywhere=where is None)]
        for layer, which in chosen.items()
    }

    def change(layer: int, one: _Given, h: Tensor) -> Tensor:
        out = h.clone()
        if one.positions is None:
            out[..., one.values.to(h.device)] *= -1
            return out
        if one.positions.max() >= h.shape[-2]:
            raise PolytopeError(
                f"{model.name}, layer {layer}: neurons flipped at position {int(one.positions.max())}, but this pass "
                f"has {h.shape[-2]} positions"
            )
        rows = torch.as_tensor(one.positions, device=h.device)[:, None]
        out[..., rows, one.values.to(h.device)] *= -1
        return out

    with _on_pre(model, given, change, f"flipping {sum(map(len, chosen.values()))} neurons"):
        yield


@contextmanager
def freezing(model: Gated, codes: Any, positions: Any = None) -> Iterator[None]:
    """Hold the gates at the codes while the context lasts: see `Model.freezing`."""
    given = _given(model, codes, positions, soft=True)
    ups = [layer for layer, kinds in given.items() for one in kinds if one.kind == "up"]
    if ups:
        raise PolytopeError(
            f"{model.name}, layer {ups[0]}: codes of the up branch, which gates nothing, can't be frozen; give kind "
            "'gate'"
        )

    def change(layer: int, mlp: Mlp) -> Tensor:
        p, there = given[layer][0].laid(mlp.h, model.name, layer)
        # Not p * h: bits choose, so that an infinite or a signed zero can't come out of a product with 0.
        on = torch.where(p, mlp.h, 0.0) if p.dtype == torch.bool else p.to(mlp.h.dtype) * mlp.h
        return torch.where(there, on if mlp.up is None else on * mlp.up, mlp.post)

    frozen = _frozen.setdefault(model.trunk, [])
    with rewriting(model, list(given), change, said="freezing codes"), _whole(model, list(given)):
        frozen += given
        try:
            yield
        finally:
            del frozen[-len(given) :]


@contextmanager
def _on_pre(
    model: Gated, given: Mapping[int, Sequence[_Given]], change: Callable[[int, _Given, Tensor], Tensor], said: str
) -> Iterator[None]:
    """Write the output of the maps whose sign is the code, while the context lasts."""
    for layer in given:
        if layer in _frozen.get(model.trunk, ()):
            raise PolytopeError(
                f"{model.name}, layer {layer}: its gates are frozen, so that {said} inside would change nothing; enter "
                "freezing last"
            )
    placed = [layer for layer, kinds in given.items() if any(not one.everywhere for one in kinds)]

    def hook(layer: int, one: _Given, shape: dict[int, torch.Size]) -> Any:
        columns = model.block(layer).columns(one.kind)

        def on_output(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
            new = out.clone()
            h = out[..., columns].reshape(*shape[layer], -1)
            new[..., columns] = change(layer, one, h).reshape(out[..., columns].shape)
            return new

        return on_output

    def shaped(layer: int, shape: dict[int, torch.Size]) -> Any:
        def on_block(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            shape[layer] = (args[0] if args else kwargs["hidden_states"]).shape[-3:-1]

        return on_block

    with ExitStack() as stack:
        stack.enter_context(model.alone())
        stack.enter_context(_told(model, said))
        shape: dict[int, torch.Size] = {}
        for layer, kinds in given.items():
            block = model.block(layer)
            handle = block.module.register_forward_pre_hook(shaped(layer, shape), with_kwargs=True)
            stack.callback(handle.remove)
            for one in kinds:
                stack.callback(block.pre[one.kind].register_forward_hook(hook(layer, one, shape)).remove)
        stack.enter_context(_whole(model, placed))
        yield


@contextmanager
def _whole(model: Gated, layers: Sequence[int]) -> Iterator[None]:
    """Refuse a pass that goes on from a cache: positions are those of the whole sequence."""

    def checked(layer: int) -> Any:
        def on_block(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for value in (*args, *kwargs.values()):
                if hasattr(value, "get_seq_length") and (before := int(value.get_seq_length(layer))):
                    raise PolytopeError(
                        f"{model.name}, layer {layer}: this pass goes on from {before} cached tokens, but positions "
                        "are those of the whole sequence; run it at once, without a cache"
                    )

        return on_block

    with ExitStack() as stack:
        for layer in layers:
            handle = model.block(layer).module.register_forward_pre_hook(checked(layer), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _given(model: Gated, codes: Any, positions: Any, *, soft: bool) -> dict[int, list[_Given]]:
    """Read codes: of `plm.encode`, or an array a layer."""
    where = None if positions is None else _positions(positions)
    if hasattr(codes, "sites") and hasattr(codes, "tokens"):
        if codes.tokens["document"].nunique() != 1:
            raise PolytopeError(
                f"{model.name}: codes of {codes.tokens['document'].nunique()} prompts; give one prompt's, such as "
                "codes[0]"
            )
        before = len(codes.provenance.get("special_tokens", {}).get("before", ()))
        where = codes.tokens["position"].to_numpy() + before if where is None else where
        arrays = [(site.layer, site.kind, codes.bits(site.layer, site.name)) for site in codes.sites]
    elif isinstance(codes, Mapping):
        arrays = [(layer, None, values) for layer, values in codes.items()]
    else:
        raise PolytopeError(
            f"{model.name}: codes = {brief(codes)} are no codes; give those of plm.encode, or {{layer: [S, N] bits}}"
        )
    if not arrays:
        raise PolytopeError(f"{model.name}: no codes of any layer were given")
    out: dict[int, list[_Given]] = {}
    for layer, kind, values in arrays:
        for name, part in _kinds(model, layer, kind, _numbers(model, layer, values, soft=soft)).items():
            if where is not None and len(where) != part.shape[-2]:
                raise PolytopeError(
                    f"{model.name}, layer {layer}: {part.shape[-2]} rows of codes for {len(where)} positions"
                )
            out.setdefault(int(layer), []).append(_Given(name, part, where))
    return out


def _kinds(model: Gated, layer: int, kind: str | None, values: Tensor) -> dict[str, Tensor]:
    """Part a layer's codes by branch; refuse those of another width or kind."""
    block = _dense(model, layer)
    first = "gate" if "gate" in block.pre else "pre"
    names = [first] if kind is None else kind.split("+")
    if any(name not in block.pre for name in names):
        raise PolytopeError(
            f"{model.name}, layer {layer}: codes of kind {kind!r}, the layer has {', '.join(block.pre)}"
        )
    width = sum(block.widths[name] for name in names)
    if values.shape[-1] != width:
        raise PolytopeError(f"{model.name}, layer {layer}: codes of {values.shape[-1]} bits, its neurons are {width}")
    return dict(zip(names, torch.split(values, [block.widths[name] for name in names], dim=-1), strict=True))


def _numbers(model: Gated, layer: Any, values: Any, *, soft: bool) -> Tensor:
    """Read one layer's codes: bits, or with `soft` numbers too."""
    wanted = "bits, or numbers of a soft code," if soft else "bits (booleans)"
    try:
        array = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise PolytopeError(f"{model.name}, layer {layer}: {brief(values)} are no {wanted} [S, N]") from error
    typed = array.dtype == torch.bool or (soft and array.is_floating_point())
    if array.dim() not in {2, 3} or not array.numel() or not typed:
        raise PolytopeError(
            f"{model.name}, layer {layer}: codes of shape {list(array.shape)} and type {str(array.dtype)[6:]}; give "
            f"{wanted} [S, N] or [B, S, N]"
        )
    if array.is_floating_point() and not bool(torch.isfinite(array).all()):
        raise PolytopeError(f"{model.name}, layer {layer}: NaN or infinite values in the soft code")
    return array


def _positions(positions: Any) -> Int64[np.ndarray, " R"]:
    array = np.atleast_1d(np.asarray(positions))
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu" or array.min() < 0:
        raise PolytopeError(f"positions = {brief(positions)}: give whole numbers from 0")
    if len(set(array.tolist())) != len(array):
        raise PolytopeError(f"positions = {brief(positions)}: one of them is given twice")
    return array.astype(np.int64)


def _neurons(model: Gated, neurons: Any) -> dict[int, Tensor]:
    """Read which neurons: `{layer: indices}`, or pairs `(layer, neuron)`."""
    if not isinstance(neurons, Mapping):
        try:
            pairs = np.asarray(neurons)
        except ValueError:  # rows of different lengths
            pairs = np.empty(0)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
            raise PolytopeError(
                f"neurons = {brief(neurons)}: give {{layer: [neuron, ...]}} or pairs [(layer, neuron), ...]"
            )
        neurons = {int(layer): pairs[pairs[:, 0] == layer, 1] for layer in np.unique(pairs[:, 0])}
    found: dict[int, Tensor] = {}
    for layer, which in neurons.items():
        block = _dense(model, layer)
        width = block.widths["gate" if "gate" in block.pre else "pre"]
        array = np.atleast_1d(np.asarray(which))
        bad = array[(array < 0) | (array >= width)] if array.dtype.kind in "iu" else array
        if array.ndim != 1 or not len(array) or len(bad):
            shown = brief(which) if not len(bad) else bad[0]
            raise PolytopeError(f"{model.name}, layer {layer}: no neuron {shown}; they are 0 to {width - 1}")
        found[int(layer)] = torch.as_tensor(np.unique(array).astype(np.int64))
    if not found:
        raise PolytopeError(f"{model.name}: no neurons were given to flip")
    return found
