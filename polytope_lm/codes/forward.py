"""Windows through the model, batch by batch, into their rows of the arrays."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from polytope_lm.codes.hamming.hamming import beside
from polytope_lm.codes.store.layout import KEEPABLE
from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import NotFiniteError, Reader, Tap, pack, read, read_bridge
from polytope_lm.models.model import known_point
from polytope_lm.models.sites import width_of
from polytope_lm.tokens.windowing import Batch, Window, batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Point, Site

Item = TypeVar("Item")

# Below this share of wanted positions it is cheaper to gather rows before packing than bytes after it.
SPARSE = 0.5
HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Spec:
    """One array to fill: what it holds, how wide it is, and the tap that feeds it."""

    name: str
    columns: int
    dtype: str
    taps: tuple[Tap, ...]  # their outputs stand side by side in a row
    site: Site
    bits: bool  # signs are packed, else values are kept


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
    arrays: Mapping[str, np.ndarray],
    *,
    batch_tokens: int,
    first: int = 0,
    done: Callable[[int, int], None] = lambda _batch, _tokens: None,
) -> None:
    """Run windows through the model and fill the arrays, a row a kept token, in the windows' order.

    The `first` batches are in the arrays already; `done` is told each batch's number and tokens.
    """
    _check_token_ids(model, windows)
    ends = np.cumsum([len(w.keep) for w in windows], dtype=np.int64)
    start = {id(w): int(end) - len(w.keep) for w, end in zip(windows, ends, strict=True)}
    pad = model.tokenizer.pad_token_id or 0
    for number, batch in enumerate(batches(windows, token_budget=batch_tokens, pad_id=pad)):
        if number >= first:
            rows = np.concatenate([start[id(w)] + np.arange(len(w.keep)) for w in batch.windows])
            run(model, batch, rows, wanted, arrays)
        done(number, int(batch.attention_mask.sum()))


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

    def pack(self, value: Tensor, site: Site) -> np.ndarray:
        """Pack the kept tokens' signs, `[K, bytes]`."""
        if not self.sparse:
            with contextlib.suppress(NotFiniteError):  # it may be a pad's, or a special token's
                return np.asarray(pack(value)[self.place])
        try:
            return pack(value[self.place])
        except NotFiniteError as error:
            where = self.where(error.index[0], error.index[-1])
            raise PolytopeError(f"{site.key}, {where}: {error}") from error


def run(model: Model, batch: Batch, rows: np.ndarray, wanted: Sequence[Spec], arrays: Mapping[str, np.ndarray]) -> None:
    """Read one batch, every tap once, whoever needs it, into rows `rows` of the arrays, window by window."""
    kept = _Kept.of(batch, rows)
    taps: dict[Tap, list[Reader]] = {}
    hooks: dict[str, list[Reader]] = {}
    for spec in wanted:
        readers = _readers(model, spec, arrays[spec.name], kept)
        point = known_point(model, spec.site.hook) if spec.site.kind == "custom" else None
        for tap, reader in zip(spec.taps, readers, strict=True):
            if spec.site.kind != "custom":
                taps.setdefault(tap, []).append(reader)
            elif point is not None:
                taps.setdefault((tap[0], point), []).append(reader)
            else:
                hooks.setdefault(spec.site.hook, []).append(reader)
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


def _readers(model: Model, spec: Spec, array: np.ndarray, kept: _Kept) -> list[Reader]:
    """Return the readers that write one array, one for each of its taps."""
    packed: dict[int, np.ndarray] = {}
    parts = len(spec.taps)

    def bits(part: int, value: Tensor) -> None:
        packed[part] = kept.pack(value, spec.site)
        if len(packed) == parts:
            array[kept.rows] = beside([packed[i] for i in range(parts)], [spec.site.width // parts] * parts)
            # A small array that outlives the big ones around it keeps the heap from being reused.
            packed.clear()

    def values(part: int, value: Tensor) -> None:
        width = spec.columns // parts
        found = value[kept.place].float().cpu().numpy()
        if spec.dtype == "float16" and (np.abs(found) > HALF).any():
            index, neuron = (int(i) for i in np.argwhere(np.abs(found) > HALF)[0])
            raise PolytopeError(
                f"{spec.name}, {kept.where(index, neuron)}: {found[index, neuron]:,.1f} is beyond float16 "
                f"(65,504): keep float32 (keep_dtype='float32')"
            )
        array[kept.rows, part * width : (part + 1) * width] = found

    readers: list[Reader] = [partial(bits if spec.bits else values, part) for part in range(parts)]
    if spec.site.kind != "custom":
        return readers
    weight, bias = next((w, b) for site, w, b in model.custom if site == spec.site)

    def declared(a: Tensor) -> None:
        if a.shape[-1] != weight.shape[1]:
            hook = spec.site.hook
            raise PolytopeError(
                f"{hook}: weight takes {weight.shape[1]} values, the activation there has {a.shape[-1]}"
            )
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
