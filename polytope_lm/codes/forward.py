"""Windows through the model, batch by batch, into their rows of the arrays."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from polytope_lm.codes.hamming.hamming import beside
from polytope_lm.codes.store.layout import KEEPABLE, Written
from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import NotFiniteError, Reader, Tap, pack, pack_rows, read, read_bridge
from polytope_lm.models.model import known_point
from polytope_lm.models.sites import width_of
from polytope_lm.on_device import Arriving, sent
from polytope_lm.tokens.windowing import Batch, Window, batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Point, Site

Item = TypeVar("Item")
_log = logging.getLogger(__name__)

# Below this share of wanted positions it is cheaper to gather rows before packing than bytes after it.
SPARSE = 0.5
HALF = float(np.finfo(np.float16).max)
_SMALL = 1 << 20  # numbers that are written without threads


@dataclass(frozen=True)
class Spec:
    """One array to fill: what it holds, how wide it is, and the tap that feeds it."""

    name: str
    columns: int
    dtype: str
    taps: tuple[Tap, ...]  # their outputs stand side by side in a row
    site: Site
    bits: bool  # signs are packed, else values are kept
    below: float | None = None  # of bits: not h > 0 but |h| < this

    def signed(self, value: Tensor) -> Tensor:
        """Return numbers whose signs are the bits."""
        return value if self.below is None else self.below - value.abs()


def specs(model: Model, sites: Sequence[Site], keep: Sequence[str], keep_dtype: str) -> tuple[Spec, ...]:
    """List the arrays that sites and kept activations need."""
    if keep_dtype not in {"float32", "float16"}:
        raise PolytopeError(f"keep_dtype {keep_dtype!r}: choose float32 or float16")
    wanted = []
    for site in sites:
        taps = _site_taps(site)
        wanted.append(Spec(site.key, width_of(site), "uint8", taps, site, bits=True))
        for name in keep:
            _check_keepable(model, site, name)
            points = taps if name == "h" and site.kind != "router" else ((site.layer, cast("Point", name)),)
            columns = width_of(site, name)
            wanted.append(Spec(f"{site.key}.{name}", columns, keep_dtype, points, site, bits=False))
    return tuple(wanted)


def _check_keepable(model: Model, site: Site, name: str) -> None:
    absent = {"gate": (), "pre": ("up",), "router": ("up", "post")}[model.block(site.layer).kinds[0]]
    there = ["h"] if site.kind == "custom" else [n for n in KEEPABLE if n not in absent]
    if name not in there:
        raise PolytopeError(f"can't keep {name!r} at {site.key}; choose among {', '.join(there)}")


def fill(
    model: Model,
    windows: Sequence[Window],
    wanted: Sequence[Spec],
    arrays: Mapping[str, np.ndarray | Written],
    *,
    batch_tokens: int,
    first: int = 0,
    fits: int | None = None,
    done: Callable[[int, int], None] = lambda _batch, _tokens: None,
) -> int:
    """Run windows through the model and fill the arrays, a row a kept token, in the windows' order.

    The `first` batches are in the arrays already; `done` is told each batch's number and tokens. On an accelerator,
    one batch is copied to the host while the next is computed. A batch that is too large for the device's memory, or
    larger than `fits`, is run in parts; returned is the size that fits, `batch_tokens` if all do.
    """
    _check_token_ids(model, windows)
    ends = np.cumsum([len(w.keep) for w in windows], dtype=np.int64)
    start = {id(w): int(end) - len(w.keep) for w, end in zip(windows, ends, strict=True)}
    pad = model.tokenizer.pad_token_id or 0
    parts = _Parts(model, wanted, arrays, start, pad, min(fits or batch_tokens, batch_tokens))
    begun: deque[tuple[list[Callable[[], None]], int, int]] = deque()

    def settle(left: int) -> None:
        while len(begun) > left:
            endings, number, tokens = begun.popleft()
            for end in endings:
                end()
            done(number, tokens)

    for number, batch in enumerate(batches(windows, token_budget=batch_tokens, pad_id=pad)):
        begun.append((parts.begin(batch) if number >= first else [], number, int(batch.attention_mask.sum())))
        settle(0 if runs_at_once(model) else 1)
    settle(0)
    return parts.fits


@dataclass
class _Parts:
    """Begins batches, in parts where a whole one does not fit into the device's memory."""

    model: Model
    wanted: Sequence[Spec]
    arrays: Mapping[str, np.ndarray | Written]
    start: Mapping[int, int]
    pad: int
    fits: int

    def begin(self, batch: Batch) -> list[Callable[[], None]]:
        """Begin a batch; return what ends it, in order."""
        size = batch.input_ids.size
        if size <= self.fits or len(batch.windows) == 1:
            rows = np.concatenate([self.start[id(w)] + np.arange(len(w.keep)) for w in batch.windows])
            with contextlib.suppress(torch.OutOfMemoryError):
                return [begin(self.model, batch, rows, self.wanted, self.arrays)]
            device = self.model.device
            if len(batch.windows) == 1:
                raise PolytopeError(
                    f"{self.model.name}: {device} is out of memory with one window of {size:,} tokens: give a smaller "
                    f"max_length, another dtype or device"
                )
            self.fits = size // 2
            _log.warning(
                "%s: out of memory with %s tokens in a batch; from here on at most %s", device, f"{size:,}",
                f"{self.fits:,}",
            )  # fmt: skip
            if device.type == "cuda":
                torch.cuda.empty_cache()
        smaller = batches(batch.windows, token_budget=self.fits, pad_id=self.pad)
        return [end for part in smaller for end in self.begin(part)]


def _check_token_ids(model: Model, windows: Sequence[Window]) -> None:
    """Refuse tokens that the model has no embedding for."""
    embedding = None
    with contextlib.suppress(AttributeError, NotImplementedError):  # not every module says where they are
        embedding = model.trunk.get_input_embeddings()  # type: ignore[operator]
    rows = getattr(embedding, "num_embeddings", None)
    largest = max((int(w.input_ids.max()) for w in windows if len(w.input_ids)), default=0)
    if isinstance(rows, int) and largest >= rows:
        raise PolytopeError(
            f"{model.name}: the tokenizer gives token {largest} and the model has {rows} embeddings: it is "
            f"another model's, give the model's own"
        )


@dataclass(frozen=True)
class _Kept:
    """The kept tokens of a batch."""

    batch: Batch
    rows: np.ndarray  # in the arrays, [K]
    place: tuple[np.ndarray, np.ndarray]  # rows and columns in the batch, [K] each
    sparse: bool

    @classmethod
    def of(cls, batch: Batch, rows: np.ndarray) -> _Kept:
        which = np.repeat(np.arange(len(batch.windows)), [len(w.keep) for w in batch.windows])
        place = (which, np.concatenate([w.keep for w in batch.windows]))
        return cls(batch, rows, place, len(rows) < SPARSE * batch.input_ids.size)

    def where(self, index: int, neuron: int) -> str:
        """Name the place of the `index`-th kept token's value."""
        window = self.batch.windows[self.place[0][index]]
        token = int(np.flatnonzero(window.keep == self.place[1][index])[0])
        at = f"document {window.document}, token {window.position[token]} ({window.token_id[token]})"
        return f"{at}, neuron {neuron}"

    def index(self, device: torch.device) -> Tensor | None:
        """Return which of the batch's tokens, row by row, are kept; None: all of them, in order."""
        which, column = self.place
        flat = which * self.batch.input_ids.shape[1] + column
        if len(flat) == self.batch.input_ids.size and (flat == np.arange(len(flat))).all():
            return None
        return sent(torch.from_numpy(flat), device)


def runs_at_once(model: Model) -> bool:
    """Whether a model's float32 numbers lie in the host's memory, where they are packed by the processor itself."""
    return model.device.type == "cpu" and model.dtype == torch.float32


def begin(
    model: Model, batch: Batch, rows: np.ndarray, wanted: Sequence[Spec], arrays: Mapping[str, np.ndarray | Written]
) -> Callable[[], None]:
    """Run one batch; return what brings its numbers into rows `rows` of the arrays.

    What is not finite is noticed on the device, and its place sought by running the batch again.
    """
    kept = _Kept.of(batch, rows)
    if runs_at_once(model):
        _read(model, kept, wanted, _AtOnce(kept, arrays))
        return lambda: None
    later = _Later(kept, arrays, Arriving(model.device), kept.index(model.device))
    _read(model, kept, wanted, later)
    later.send()

    def end() -> None:
        if later.arrive():
            _read(model, kept, wanted, _AtOnce(kept, arrays))

    return end


@dataclass(frozen=True)
class _AtOnce:
    """Writes each activation into the arrays as it comes."""

    kept: _Kept
    arrays: Mapping[str, np.ndarray | Written]
    _packed: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    def bits(self, spec: Spec, part: int, value: Tensor) -> None:
        parts, n = self._packed.setdefault(spec.name, {}), len(spec.taps)
        parts[part] = self._pack(spec.signed(value), spec.site)
        if len(parts) == n:
            self.arrays[spec.name][self.kept.rows] = beside([parts[i] for i in range(n)], [spec.site.width // n] * n)
            # A small array that outlives the big ones around it keeps the heap from being reused.
            del self._packed[spec.name]

    def _pack(self, value: Tensor, site: Site) -> np.ndarray:
        """Pack the kept tokens' signs, `[K, bytes]`."""
        if not self.kept.sparse:
            with contextlib.suppress(NotFiniteError):  # it may be a pad's, or a special token's
                return np.asarray(pack(value)[self.kept.place])
        try:
            return pack(value[self.kept.place])
        except NotFiniteError as error:
            where = self.kept.where(error.index[0], error.index[-1])
            raise PolytopeError(f"{site.key}, {where}: {error}") from error

    def values(self, spec: Spec, part: int, value: Tensor) -> None:
        width = spec.columns // len(spec.taps)
        found = value[self.kept.place].float().cpu().numpy()
        if spec.dtype == "float16" and (np.abs(found) > HALF).any():
            index, neuron = (int(i) for i in np.argwhere(np.abs(found) > HALF)[0])
            raise PolytopeError(
                f"{spec.name}, {self.kept.where(index, neuron)}: {found[index, neuron]:,.1f} is beyond float16 "
                f"(65,504): keep float32 (keep_dtype='float32')"
            )
        self.arrays[spec.name][self.kept.rows, part * width : (part + 1) * width] = found


@dataclass(frozen=True)
class _Later:
    """Packs on the device and sends bytes; they are written into the arrays when they have arrived."""

    kept: _Kept
    arrays: Mapping[str, np.ndarray | Written]
    arriving: Arriving
    index: Tensor | None  # of the kept tokens in the batch, on the device; None: all of them, in order
    _found: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    _specs: dict[str, Spec] = field(default_factory=dict)
    _odd: list[Tensor] = field(default_factory=list)

    def bits(self, spec: Spec, part: int, value: Tensor) -> None:
        flat = spec.signed(value).flatten(0, -2)
        if self.index is not None and self.kept.sparse:
            packed, finite = pack_rows(flat[self.index])
        else:
            packed, finite = pack_rows(flat)
            if self.index is not None:
                packed, finite = packed[self.index], finite[self.index]
        self._keep(spec, part, packed, ~finite.all())

    def values(self, spec: Spec, part: int, value: Tensor) -> None:
        found = value.flatten(0, -2)
        found = (found if self.index is None else found[self.index]).float()
        if spec.dtype == "float16":
            self._keep(spec, part, found.half(), (found.abs() > HALF).any())
        else:
            self._keep(spec, part, found.clone(), None)

    def _keep(self, spec: Spec, part: int, value: Tensor, odd: Tensor | None) -> None:
        self._specs[spec.name] = spec
        self._found.setdefault(spec.name, {})[part] = self.arriving.take(value)
        if odd is not None:
            self._odd.append(odd)

    def send(self) -> None:
        """Send whether anything was not finite, behind all else."""
        if self._odd:
            self._odd[:] = [self.arriving.take(torch.stack(self._odd).any())]
        self.arriving.sent()

    def arrive(self) -> bool:
        """Wait for all of it and write it; return whether something was not finite, or beyond float16."""
        self.arriving.wait()
        stretches = _stretches(self.kept.rows)

        def write(name: str) -> None:
            spec, parts, array = self._specs[name], self._found[name], self.arrays[name]
            n = len(spec.taps)
            found = [parts[i].numpy() for i in range(n)]
            whole = beside(found, [spec.site.width // n] * n) if spec.bits else np.hstack(found) if n > 1 else found[0]
            for to, of in stretches:
                array[to] = whole[of]

        if sum(part.numel() for parts in self._found.values() for part in parts.values()) < _SMALL:
            list(map(write, self._found))
        else:
            list(_writers().map(write, self._found))
        return any(bool(odd) for odd in self._odd)


def _stretches(rows: np.ndarray) -> list[tuple[slice, slice]]:
    """Cut rows into consecutive ones: where they go, and which they are."""
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return [(slice(int(rows[a]), int(rows[a]) + b - a), slice(a, b)) for a, b in itertools.pairwise(cuts) if b > a]


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="polytope-lm-writing")


def _read(model: Model, kept: _Kept, wanted: Sequence[Spec], sink: _AtOnce | _Later) -> None:
    """Read one batch, every tap once, whoever needs it."""
    taps: dict[Tap, list[Reader]] = {}
    hooks: dict[str, list[Reader]] = {}
    for spec in wanted:
        readers = _readers(model, spec, sink)
        point = known_point(model, spec.site.hook) if spec.site.kind == "custom" else None
        for tap, reader in zip(spec.taps, readers, strict=True):
            if spec.site.kind != "custom":
                taps.setdefault(tap, []).append(reader)
            elif point is not None:
                taps.setdefault((tap[0], point), []).append(reader)
            else:
                hooks.setdefault(spec.site.hook, []).append(reader)
    batch = kept.batch
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    if taps:
        some = None if bool(mask.all()) else mask
        read(model, ids, some, {tap: _all(readers) for tap, readers in taps.items()})
    if hooks:
        with torch.inference_mode():
            read_bridge(model, ids.to(model.device), {name: _all(readers) for name, readers in hooks.items()})


def _site_taps(site: Site) -> tuple[Tap, ...]:
    if site.kind == "custom":
        return ((site.layer, "h"),)
    points = {"pre": ("h",), "router": ("chosen",)}.get(site.kind, tuple(site.kind.split("+")))
    return tuple((site.layer, point) for point in points)  # type: ignore[misc]


def _all(readers: Sequence[Reader]) -> Reader:
    def reader(value: Tensor) -> None:
        for each in readers:
            each(value)

    return reader


def _readers(model: Model, spec: Spec, sink: _AtOnce | _Later) -> list[Reader]:
    """Return the readers of one array, one for each of its taps."""
    take = sink.bits if spec.bits else sink.values
    readers: list[Reader] = [partial(take, spec, part) for part in range(len(spec.taps))]
    if spec.site.kind != "custom":
        return readers
    weight, bias = next((w, b) for site, w, b in model.custom if site == spec.site)

    def declared(a: Tensor) -> None:
        readers[0](torch.nn.functional.linear(a.float(), weight.to(a.device), bias.to(a.device)))

    return [declared]


def in_memory(wanted: Sequence[Spec], rows: int) -> dict[str, np.ndarray]:
    """Return empty arrays for `fill`."""
    return {spec.name: np.zeros((rows, spec.columns), spec.dtype) for spec in wanted}


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of `size`, the last one shorter."""
    stream = iter(items)
    while chunk := list(itertools.islice(stream, size)):
        yield chunk
