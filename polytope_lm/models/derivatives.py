"""Derivatives of what a model puts out with respect to one place of it, from there on.

`Onward` is a model as a function of what stands at one position of one layer: everything before it is run
once. `run` evaluates it for many versions of that place in one batch; `gradient` is one forward and one
backward pass, whose answer all directions at that place share; `jvp` and `hvp` are exact, by forward-mode and
by a second backward pass, through the plain formula of attention (fused kernels have neither on every
device). All rows of a batch are independent, so n directions cost one pass of n rows.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import Done, Tap, forward, tapped
from polytope_lm.models.interventions import Replaced, Space, check_streams, patched
from polytope_lm.models.prefix import share_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jaxtyping import Float, Int

    from polytope_lm.models.model import Model
    from polytope_lm.models.prefix import Prefix

_TOKENS = 2048
"""Of all versions in one pass."""


@dataclass(frozen=True, eq=False, repr=False)
class Ran:
    """What n versions gave, a row each.

    Attributes:
        out: what is read, `[n, K]`: see `Onward.read`.
        taps: activations from the place on, `[n, k, width]`.

    """

    out: Float[Tensor, "n K"]
    taps: Mapping[Tap, Float[Tensor, "n k _"]]


@dataclass(eq=False, repr=False)
class Onward:
    """A model from one place on, as a function of the vector that stands there.

    Attributes:
        model: the model.
        input_ids: the sequence; for a causal model nothing after `read_at` is run.
        layer: the block.
        position: of the token, counted from the start or, if negative, from the end.
        at: the place in the block: `resid_mid`, `mlp_in` or `embed`.
        read_at: the position whose output is read.
        read: `output`, the logits there (without an LM head the final hidden state); or `mlp_out`, what this
            block's own MLP puts out at the place itself, after which the pass ends.
        passes: forward passes run so far, versions counted one by one.

    Raises (when made):
        PolytopeError: no such layer or position; a position after the one that is read; a block whose stream
            can't be replaced.

    """

    model: Model
    input_ids: Int[Tensor, " S"]
    layer: int
    position: int = -1
    at: Space = "resid_mid"
    read_at: int = -1
    read: Literal["output", "mlp_out"] = "output"
    passes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check the place and run what comes before it."""
        model, length = self.model, len(self.input_ids)
        model.block(self.layer)
        check_streams(model, self.layer, self.at)
        for name in ("position", "read_at"):
            value = getattr(self, name)
            if not -length <= value < length:
                raise PolytopeError(f"{name} = {value} is outside the prompt of {length} tokens")
            setattr(self, name, value % length)
        if self.read == "mlp_out":
            self.read_at = self.position
        if model.causal and self.position > self.read_at:
            raise PolytopeError(
                f"position = {self.position} comes after the position that is read, {self.read_at}, and can't "
                "change it: choose an earlier position"
            )
        last = self.read_at if model.causal else length - 1
        ids = torch.as_tensor(self.input_ids)[: last + 1]
        self._prefix: Prefix | None = None
        if model.causal:
            self._prefix = share_prefix(model, ids, layer=self.layer, position=self.position, last=last)
        self._ids = ids.to(model.device)
        self._first = 0 if self._prefix is None else self.position
        self._base: Tensor | None = None

    @property
    def x(self) -> Float[Tensor, " D"]:
        """The vector that stands there in the clean run."""
        if self._base is None:
            self.clean()
        assert self._base is not None  # noqa: S101 - the pass has kept it
        return self._base

    @property
    def _start(self) -> int:
        """The first position that taps keep: what comes before a causal model's place never changes."""
        return self.position if self.model.causal else 0

    def clean(self, taps: Sequence[Tap] = ()) -> Ran:
        """Run the clean sequence: one row."""
        with torch.no_grad():
            return self._cut(*self._pass(self._keep, taps, 1))

    def run(self, vectors: Float[Tensor, "n D"], taps: Sequence[Tap] = ()) -> Ran:
        """Run n versions of the place, as many at once as memory likes."""
        size = max(1, _TOKENS // (len(self._ids) - self._first))
        with torch.no_grad():
            parts = [self._cut(*self._pass(rows, taps, len(rows))) for rows in torch.split(self._own(vectors), size)]
        found = {tap: torch.cat([part.taps[tap] for part in parts]) for tap in taps}
        return Ran(torch.cat([part.out for part in parts]), found)

    def gradient(
        self, of: Callable[[Tensor], Tensor], vectors: Float[Tensor, "n D"] | None = None, taps: Sequence[Tap] = ()
    ) -> tuple[Float[Tensor, "n D"], Ran, Mapping[Tap, Tensor]]:
        """Return the gradient of a number with respect to the place, by one forward and one backward pass.

        Args:
            of: gives each row of the output, `[n, K]`, its number, `[n]`.
            vectors: where; by default the clean vector alone.
            taps: activations whose gradients are wanted, too.

        Returns:
            The gradients at the place, what was run (the taps too), and the taps' gradients.

        """
        leaves: list[Tensor] = []

        def leaf(own: Tensor) -> Tensor:
            if not leaves:  # a gated MLP reads its input twice
                leaves.append((self._keep(own) if vectors is None else self._own(vectors)).clone().requires_grad_())
            return leaves[0]

        with torch.enable_grad():
            out, read = self._pass(leaf, taps, 1 if vectors is None else len(vectors))
            asked = [leaves[0], *read.values()]
            found = torch.autograd.grad(of(out).sum(), asked, allow_unused=True)
        zero = [torch.zeros_like(one) if grad is None else grad for one, grad in zip(asked, found, strict=True)]
        ran = self._cut(out.detach(), {tap: value.detach() for tap, value in read.items()})
        return zero[0], ran, self._cut(out, dict(zip(read, zero[1:], strict=True))).taps

    def jvp(self, directions: Float[Tensor, "n D"], taps: Sequence[Tap] = ()) -> tuple[Ran, Ran]:
        """Return the output and its derivative along each direction, `J v`, at the clean vector, by forward mode."""
        v = self._own(directions)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            at: Tensor = forward_ad.make_dual(self.x.expand_as(v).clone(), v)  # type: ignore[no-untyped-call]
            ran = self._cut(*self._pass(at, taps, len(v)))
            every = (ran.out, *ran.taps.values())
            out, *values = (forward_ad.unpack_dual(one) for one in every)  # type: ignore[no-untyped-call]
            moved = [torch.zeros_like(p) if t is None else t.clone() for p, t in (out, *values)]
            still = [p.clone() for p, _ in (out, *values)]
        names = list(ran.taps)
        return (
            Ran(still[0], dict(zip(names, still[1:], strict=True))),
            Ran(moved[0], dict(zip(names, moved[1:], strict=True))),
        )

    def hvp(
        self, of: Callable[[Tensor], Tensor], directions: Float[Tensor, "n D"]
    ) -> tuple[Float[Tensor, "n D"], Float[Tensor, "n D"]]:
        """Return the gradient `g` and `H v` of a number at the clean vector, along each direction, by two backwards."""
        v = self._own(directions)
        at = self.x.expand_as(v).clone().requires_grad_()
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            (g,) = torch.autograd.grad(of(self._pass(at, (), len(at))[0]).sum(), at, create_graph=True)
            if g.grad_fn is None:  # the number is linear there
                return g.detach(), torch.zeros_like(v)
            (hv,) = torch.autograd.grad((g * v).sum(), at, allow_unused=True)
        return g.detach(), torch.zeros_like(v) if hv is None else hv

    def _own(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return vectors as the model has them; refuse other shapes."""
        rows = torch.as_tensor(vectors).to(self.model.device, self.model.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.model.d_model or not len(rows):
            raise PolytopeError(f"vectors of shape {tuple(rows.shape)}, expected [n, {self.model.d_model}], n from 1")
        return rows

    def _keep(self, own: Tensor) -> Tensor:
        """Remember what stands in the place in the clean run."""
        self._base = own.detach()[0].clone()
        return self._base[None]

    def _cut(self, out: Tensor, read: Mapping[Tap, Tensor]) -> Ran:
        """Keep of what was read the positions that can change."""
        start, positions = self._start - self._first, len(self._ids) - self._first
        return Ran(out, {tap: each.reshape(len(out), positions, -1)[:, start:] for tap, each in read.items()})

    def _pass(
        self, rows: Tensor | Callable[[Tensor], Tensor], taps: Sequence[Tap], count: int
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        """Run `count` versions of the place in one pass. What is read is as the modules have it."""
        model, read, first = self.model, dict[Tap, Tensor](), self._first
        self.passes += count
        with ExitStack() as stack:
            stack.enter_context(model.alone())
            stack.enter_context(_weights_fixed(model))
            ids, more = self._ids.expand(count, -1), dict[str, Any]()
            if self._prefix is not None:
                ids, more = stack.enter_context(self._prefix.entered(count))
            place = Replaced(self.layer, self.at, self.position - first)
            stack.enter_context(patched(model.block(self.layer), place, rows, ids.shape))

            def keep(tap: Tap, value: Tensor) -> None:
                read[tap] = value

            stack.enter_context(tapped(model, taps, keep))
            whole = self._output(ids, more, stack)
        return whole[:, self.read_at - first], {tap: read[tap] for tap in taps}

    def _output(self, ids: Tensor, more: dict[str, Any], stack: ExitStack) -> Tensor:
        """Run the model, or what there is of it up to this block's MLP; all positions' outputs."""
        model, found = self.model, list[Tensor]()
        if self.read == "output":
            out = forward(model, ids, logits=model.has_logits, **more)
            return out.logits if model.has_logits else out.last_hidden_state  # type: ignore[no-any-return]

        def last(_module: Any, _args: Any, out: Tensor) -> None:
            found.append(out.reshape(*ids.shape, -1))
            raise Done

        stack.callback(model.block(self.layer).down.register_forward_hook(last).remove)
        with suppress(Done):
            forward(model, ids, **more)
        return found[0]


@contextmanager
def _weights_fixed(model: Model) -> Iterator[None]:
    """Take no derivative with respect to weights while the context lasts: their graph would be most of the memory."""
    asked = [weight for weight in model.hf.parameters() if weight.requires_grad]
    for weight in asked:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asked:
            weight.requires_grad_(True)
