"""A language model with its sites, and the sites that a user declares at any hook point."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from polytope_lm.compiled import uses_threads
from polytope_lm.errors import PolytopeError, visible
from polytope_lm.models import bridge as bridges
from polytope_lm.models import gates
from polytope_lm.models.encoders import numbers_of, read_encoder
from polytope_lm.models.families import Block, make_site
from polytope_lm.models.sites import Geometry, Point, Premises, Site
from polytope_lm.models.sources import changed_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from jaxtyping import Float

_log = logging.getLogger(__name__)
_POINTS: dict[str, Point] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "x",
    "ln2.hook_out": "u",
    "mlp.hook_pre": "h",
    "mlp.hook_pre_linear": "up",
    "mlp.hook_post": "post",
}

_LIBRARIES = ("torch", "transformers", "accelerate", "transformer_lens", "polytope_lm")
# By trunk: its lock, and how deep the holder is in it.
_turns: WeakKeyDictionary[nn.Module, tuple[Any, list[int]]] = WeakKeyDictionary()
_making_a_turn = threading.Lock()


@contextmanager
def exclusive(hf: nn.Module, trunk: nn.Module, name: str) -> Iterator[None]:
    """Have a model alone, in eval mode, while the context lasts; every flag is restored after it.

    Hooks sit on modules, which all threads share: one thread at a time reads or writes a trunk, however often it was
    wrapped. The lock belongs to the trunk and is re-entrant. Someone else's hook is refused: what is read would not be
    the model's own. So is a process that was forked after torch's threads had started.
    """
    if torch.get_num_threads() > 1:
        uses_threads("torch")
    with _making_a_turn:
        lock, depth = _turns.setdefault(trunk, (threading.RLock(), [0]))
    with lock, ExitStack() as stack:
        if not depth[0]:
            anywhere = (every_module._global_forward_hooks, every_module._global_forward_pre_hooks)
            _check_hooks(anywhere, name, "all modules")
            for path, module in hf.named_modules():
                state = vars(module)  # getattr is slow where a module has no such thing
                if state["_forward_hooks"] or state["_forward_pre_hooks"] or state.get("fwd_hooks"):
                    kinds = (module._forward_hooks, module._forward_pre_hooks)
                    _check_hooks(kinds, name, path or "the model", getattr(module, "fwd_hooks", ()))
                if module.training:
                    stack.callback(setattr, module, "training", True)
                    module.training = False
                if getattr(config := state.get("config"), "return_dict", None) is False:
                    stack.callback(setattr, config, "return_dict", False)
                    config.return_dict = True
        depth[0] += 1
        try:
            yield
        finally:
            depth[0] -= 1


def _check_hooks(kinds: Sequence[Mapping[int, Any]], name: str, where: str, added: Iterable[Any] = ()) -> None:
    """Refuse hooks that neither we nor the libraries put there; `added` is what TransformerLens keeps of users'."""
    of_users = list(added)
    for hook in (hook for kind in kinds for hook in kind.values()):
        function = getattr(hook, "func", hook)
        if str(getattr(function, "__module__", "")).split(".")[0] not in _LIBRARIES:
            of_users.append(function)
    if of_users:
        called = getattr(of_users[0], "__qualname__", type(of_users[0]).__name__)
        raise PolytopeError(
            f"{name}: a hook that is not the model's own, {called}, sits on {where} and may "
            f"change its codes: call remove() on its handle (reset_hooks() on a bridge) first"
        )


def compiled_parts(hf: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that `torch.compile` has, by path."""
    parts = hf.named_modules()
    return {path: m for path, m in parts if m._compiled_call_impl is not None or type(m).__name__ == "OptimizedModule"}


@dataclass(frozen=True, eq=False)
class Model:
    """A language model with its sites; made by `load` or `wrap`.

    Attributes:
        name: the name that it was loaded by.
        revision: which weights (the hub's commit, a packaged model's version and checksum, or a hash), which
            configuration and which tokenizer (hashes).
        hf: the transformers model, as it was given.
        tokenizer: its fast tokenizer.
        trunk: the model without its LM head.
        blocks: its transformer blocks and where their MLPs are read.
        causal: whether a token sees only what comes before it.
        context_length: the longest input, in tokens.
        lens: the `TransformerBridge` that the user brought, if any.
        custom: sites that the user declared, with their weights.
        bos: as in `tokens.specials`: what is put before texts unless a call says otherwise. None: what the
            tokenizer puts there; a `TransformerBridge` has a default of its own.
        weights_origin: what was done to the weights before they came here ("dequantised from 4 bits ..."), if
            anything is known.
        formerly: how old stores name the weights, if otherwise.
        command: the call that loads it again; empty where a user made it.

    """

    name: str
    revision: str
    hf: nn.Module
    tokenizer: Any
    trunk: nn.Module
    blocks: tuple[Block, ...]
    causal: bool
    context_length: int
    lens: Any = None
    custom: tuple[tuple[Site, Tensor, Tensor], ...] = field(default=())
    bos: bool | None = None
    weights_origin: str = ""
    formerly: str = ""
    command: str = ""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' number format."""
        return next(self.hf.parameters()).dtype

    @property
    def attention(self) -> str:
        """The attention implementation; another one may flip bits with `|h| < 1e-4`."""
        if self.lens is not None:
            return "bridge"  # a TransformerBridge computes attention by itself, whatever the configuration says
        return str(getattr(getattr(self.hf, "config", None), "_attn_implementation", None) or "eager")

    @property
    def family(self) -> str:
        """The architecture's class."""
        return type(self.hf).__name__

    @property
    def provenance(self) -> dict[str, str]:
        """What tells the model from others: name, revision, family, dtype, attention, what is compiled, its origin."""
        compiled = sorted({path.rsplit(".", 1)[-1] for path in compiled_parts(self.hf)})
        return {
            "model": self.name,
            "revision": self.revision,
            "family": self.family,
            "dtype": str(self.dtype)[6:],
            "attention": self.attention,
            **({"compiled": ", ".join(compiled)} if compiled else {}),
            **({"weights": self.weights_origin} if self.weights_origin else {}),
            **({"intervention": said} if (said := gates.under_way(self.trunk)) else {}),
        }

    def check_made(self, what: str, was: Mapping[str, Any], cure: str = "give the same model") -> None:
        """Make sure that this very model (weights, configuration, tokenizer) made something of provenance `was`."""
        changed, compared = changed_parts(str(was.get("revision")), self.revision, self.formerly)
        if changed:
            raise PolytopeError(
                f"{what} by {was.get('model')}, revision {was.get('revision')}; {self.name} has another "
                f"{' and '.join(changed)}, revision {self.revision}: {cure}"
            )
        if not compared:
            _log.warning(
                "%s by %s, whose weights are the same; its configuration and tokenizer were not recorded and "
                "can't be compared", what, was.get("model"),
            )  # fmt: skip

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """D, the residual stream's width."""
        return self.sites[0].d_model

    @property
    def has_logits(self) -> bool:
        """Whether the model has an LM head and so a next-token distribution."""
        find = getattr(self.hf, "get_output_embeddings", None)
        return self.causal and self.hf is not self.trunk and (find is None or find() is not None)

    @cached_property
    def sites(self) -> Sites:
        """Each layer's default site: `pre`, `gate` for gated MLPs, `router` for mixtures; then the user's own."""
        default = (self.site(layer) for layer in range(self.n_layers))
        return Sites((*default, *(site for site, _, _ in self.custom)))

    @property
    def bridge(self) -> Any:
        """A `TransformerBridge` of this model: the user's own, or one around a copy of it."""
        return self.lens if self.lens is not None else self._built_bridge

    @cached_property
    def _built_bridge(self) -> Any:
        return bridges.build(self.hf, self.tokenizer, self.name)

    def alone(self) -> AbstractContextManager[None]:
        """Have the model alone and in eval mode while a context lasts: every pass runs in one."""
        return exclusive(self.hf, self.trunk, self.name)

    def imposing(self, codes: Any, positions: Any = None) -> AbstractContextManager[None]:
        """Impose codes while a context lasts: `h'_i = |h_i| (2 z_i - 1)`, the up branch untouched.

        A token's own code imposed is the identity, bit for bit. The model is had alone and restored, whatever happens.

        Args:
            codes: one prompt's, from `plm.encode`; or bits, `{layer: [S, N]}` (or `[B, S, N]`), of a whole sequence.
            positions: where in the sequence the rows belong; by default the codes' own positions.

        Raises:
            PolytopeError: codes of several prompts, of another width or kind; in the pass: another length.

        Examples:
            >>> import polytope_lm as plm, torch
            >>> model = plm.load("tiny-gpt2")
            >>> ids = torch.tensor([model.tokenizer("The river bank")["input_ids"]])
            >>> clean = model.hf(ids).logits
            >>> with model.imposing(plm.encode(model, "The river bank")):
            ...     bool(torch.equal(model.hf(ids).logits, clean))
            True

        """
        return gates.imposing(self, codes, positions)

    def flipping(self, neurons: Any, positions: Any = None) -> AbstractContextManager[None]:
        """Flip neurons while a context lasts: their `h_i` becomes `-h_i`.

        Args:
            neurons: `{layer: [neuron, ...]}`, or pairs `(layer, neuron)`.
            positions: at which positions of a sequence; by default at all.

        Raises:
            PolytopeError: no such layer or neuron; in the pass: no such position.

        Examples:
            >>> import polytope_lm as plm
            >>> model = plm.load("tiny-gpt2")
            >>> clean = plm.encode(model, "The river bank")
            >>> with model.flipping({1: [5]}):
            ...     flipped = plm.encode(model, "The river bank")
            >>> sorted({int(neuron) for _, neuron in zip(*(clean.bits(1) != flipped.bits(1)).nonzero())})
            [5]

        """
        return gates.flipping(self, neurons, positions)

    def freezing(self, codes: Any, positions: Any = None) -> AbstractContextManager[None]:
        """Hold gates fixed while a context lasts: `post_i = z_i h_i`, of gated MLPs `z_i g_i up_i`.

        Behind ReLUs a token's own code frozen is the identity, and the MLP is then the affine map of that polytope
        whatever its input. Of smooth activations give the soft code, `p = act(h)/h`: the secant, the identity at the
        token up to rounding; gated, `p_i g_i up_i` stays a product of two branches.

        Args:
            codes: one prompt's, from `plm.encode`; or `{layer: [S, N]}` of a whole sequence, bits or numbers.
            positions: where in the sequence the rows belong; by default the codes' own positions.

        Raises:
            PolytopeError: as `imposing`; codes of the up branch, which gates nothing.

        """
        return gates.freezing(self, codes, positions)

    def block(self, layer: int) -> Block:
        """Return one block's parts.

        Raises:
            PolytopeError: the layer is out of range.

        """
        whole = isinstance(layer, (int, np.integer)) and not isinstance(layer, bool)
        if not whole or not 0 <= layer < self.n_layers:
            raise PolytopeError(
                f"{self.name}: no layer {layer!r}; it has {self.n_layers}, from 0 to {self.n_layers - 1}"
            )
        return self.blocks[layer]

    def site(self, layer: int, kind: str | None = None) -> Site:
        """Return the site of a layer.

        Args:
            layer: the block's index, from 0.
            kind: `pre` for plain MLPs; `gate` (the default), `up` or `gate+up` for gated ones; `router` for a
                mixture of experts; or the name of a hook point that was declared with `with_site`.

        Raises:
            PolytopeError: no such layer, or no such kind here.

        """
        for site, _, _ in self.custom:
            if kind == site.hook and layer == site.layer:
                return site
        block = self.block(layer)
        if kind is not None and kind not in block.kinds:
            there = ", ".join(block.kinds)
            raise PolytopeError(f"{self.name}, layer {layer}: no code kind {kind!r}; choose among {there}")
        return make_site(block, int(layer), kind or block.kinds[0])

    def with_site(self, hook: str, weight: Any, bias: Any = None) -> Model:
        """Return the model with one more site: `h = W a + b` of any hook point's activation `a`.

        Args:
            hook: TransformerLens's name of the hook point, such as `blocks.4.hook_resid_post`.
            weight: W, `[N, width of a]`.
            bias: b, `[N]`; zeros by default.

        Raises:
            PolytopeError: the bridge has no such hook point, shapes do not fit, or numbers are not finite.

        """
        return self._extended(_declared(self, hook, weight, bias))

    def with_encoder(self, encoder: Any, hook: str | None = None) -> Model:
        """Return the model with one more site: a sparse autoencoder's or a transcoder's encoder.

        Bit i says whether feature i is on. Of ReLU and JumpReLU encoders this is the sign of
        `h = W_enc^T (a - b_dec) + b_enc - max(threshold, 0)` of the hook point's activation `a`, and the encoder is
        affine inside a region. `plm.encode(model, texts, kind=model.sites[-1].hook)` reads its codes; `keep=("h",)`
        keeps `h`, the feature's value where it is above 0 (for JumpReLU less the threshold).

        Args:
            encoder: a directory as SAELens writes it, its loaded encoder, or a mapping of arrays as SAELens stores
                them: `W_enc` `[d_in, d_sae]`, and where there are any `b_enc`, `b_dec` and `threshold`. A transcoder's
                `b_dec` belongs to its output: leave it out of a mapping.
            hook: the hook point; by default the configuration's.

        Raises:
            PolytopeError: an architecture without a code of signs (TopK), an input that is normalised first, `W_enc`
                turned round or of another width than the hook point.

        Examples:
            >>> import numpy as np, polytope_lm as plm
            >>> W_enc = np.random.default_rng(0).standard_normal((128, 300))
            >>> model = plm.load("tiny-gpt2").with_encoder({"W_enc": W_enc}, "blocks.1.hook_resid_post")
            >>> plm.encode(model, "The loop ends", kind="blocks.1.hook_resid_post").bits().shape
            (5, 300)

        """
        read = read_encoder(encoder, hook)
        extended = self._extended(_declared(self, read.hook, read.weight, read.bias, read.premises))
        if read.bos and self.bos is None and not getattr(self.tokenizer, "add_bos_token", False):
            _log.warning(
                "%s: the encoder was trained on texts with BOS before them; read them with bos=True", self.name
            )
        return extended

    def _extended(self, declared: tuple[Site, Tensor, Tensor]) -> Model:
        extended = replace(self, custom=(*self.custom, declared), command="")
        if "_built_bridge" in vars(self):  # a second bridge would be a third copy of the weights
            vars(extended)["_built_bridge"] = self._built_bridge
        return extended

    def geometry(self, site: Site) -> Geometry:
        """Return the numbers behind a site, as float32 arrays: `h = W (gain * C x / sigma + shift) + b`.

        Args:
            site: a site of this model.

        Raises:
            PolytopeError: the weights that the modules show do not give what they put out (an adapter that is
                not merged, quantised weights, another norm).

        """
        if site.kind == "custom":
            _, weight, bias = next(entry for entry in self.custom if entry[0] == site)
            ones = np.ones(site.d_model, np.float32)
            return Geometry(_array(weight), _array(bias), ones, 0 * ones, 0.0, "none")
        block = self.block(site.layer)
        if block.inexact:
            raise PolytopeError(block.inexact)
        parts = [block.numbers(kind) for kind in site.kind.split("+")]
        weights = np.concatenate([_array(w) for w, _ in parts])
        biases = np.concatenate([_array(b) if b is not None else np.zeros(len(w), np.float32) for w, b in parts])
        gain, shift, eps = block.norm_numbers()
        return Geometry(weights, biases, _array(gain), _array(shift), eps, block.norm_kind)

    def __sklearn_clone__(self) -> Model:
        """Return itself: scikit-learn clones an estimator's settings, and a model's weights are not copied."""
        return self

    def __repr__(self) -> str:
        sees = "causal" if self.causal else "bidirectional"
        head = f"{visible(self.name)} ({self.family}, {sees}, {self.n_layers} layers"
        return f"{head}, context {self.context_length}, {str(self.dtype)[6:]}, {self.attention} attention)"


class Sites(tuple[Site, ...]):
    """The sites of a model, shown as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        lines = [f"{'site':<12}{'bits':>7}  {'hook point':<30}premises"]
        lines += [f"{s.key:<12}{s.width:>7}  {visible(s.hook):<30}{s.premises}" for s in self]
        return "\n".join(lines)


def _declared(
    model: Model, hook: str, weight: Any, bias: Any, premises: Premises | None = None
) -> tuple[Site, Tensor, Tensor]:
    """Check what `with_site` was given; return the site, its W and its b."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found is None:
        raise PolytopeError(f"hook point {hook!r}: expected TransformerLens's name, such as blocks.4.hook_resid_post")
    inside = model.site(int(found[1]))
    if any(site.hook == hook for site, _, _ in model.custom):
        raise PolytopeError(
            f"{model.name}: {hook!r} has a declared site already; declare the other on the model without it"
        )
    point, width = known_point(model, hook), None
    if point is not None:
        width = inside.width if point in {"h", "up", "post"} else inside.d_model
    elif not model.causal:
        raise PolytopeError(
            f"{model.name}: declared hook points outside the MLP need a causal model; {hook!r} is outside"
        )
    elif hook not in model.bridge.hook_dict:
        raise PolytopeError(f"{model.name} has no hook point {hook!r}; model.bridge.hook_dict lists them")
    W = numbers_of(hook, "weight", weight)
    if W.ndim != 2:
        raise PolytopeError(f"{hook}: weight has shape {tuple(W.shape)}, expected [N, width of the activation]")
    b = torch.zeros(len(W)) if bias is None else numbers_of(hook, "bias", bias)
    if b.shape != (len(W),):
        raise PolytopeError(
            f"{hook}: bias has shape {tuple(b.shape)}, expected [{len(W)}] as the weight has {len(W)} rows"
        )
    width = _width_at(model, hook) if width is None else width
    if width != W.shape[1]:
        turned = f"; it is turned round, [{width}, {W.shape[1]}] for [N, {width}]" if width == len(W) else ""
        raise PolytopeError(f"{hook}: weight takes {W.shape[1]} values, the activation there has {width}{turned}")
    premises = premises or Premises("unknown", "none", bool((b != 0).any()), "none")
    return Site(inside.layer, "custom", hook, W.shape[0], W.shape[1], premises), W, b


def _width_at(model: Model, hook: str) -> int:
    """Return the width of what a hook point of the bridge has, heads side by side, from one token."""
    found: list[int] = []
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with model.alone(), torch.inference_mode():
        take = [(hook, lambda value, hook: found.append(value[0, 0].numel()))]  # noqa: ARG005 - passed by name
        model.bridge.run_with_hooks(ids, return_type=None, fwd_hooks=take)
    if not found:
        raise PolytopeError(f"{model.name}: a forward pass never reaches {hook!r}; choose another hook point")
    return found[0]


def weights_digest(weight: Tensor, bias: Tensor) -> str:
    """Hash a declared site's numbers, so that two sites of one hook point can't share a store."""
    digest = hashlib.sha256()
    for tensor in (weight, bias):
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def known_point(model: Model, hook: str) -> Point | None:
    """Return the trunk's own reading point for a hook name, or None where only the bridge has it."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found is None:
        return None
    block = model.block(int(found[1]))
    no_mid = found[2] == "hook_resid_mid" and (block.parallel or block.post_norm)
    no_norm = found[2] == "ln2.hook_out" and block.norm_kind == "none"
    no_mlp = found[2].startswith("mlp.") and block.routing is not None
    return None if no_mid or no_norm or no_mlp else _POINTS.get(found[2])


def _array(tensor: Tensor) -> Float[np.ndarray, ...]:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
