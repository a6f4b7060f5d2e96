"""Windows through the model, batch by batch, into their rows of the arrays: packing happens inside the hook."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from polytope_lm.errors import PolytopeError
from polytope_lm.models.custom import known_point, read_bridge
from polytope_lm.models.hooks import NotFiniteError, Reader, Tap, pack, read
from polytope_lm.models.loading import Model
from polytope_lm.models.sites import Site
from polytope_lm.tokens import Batch, Window, batches

Item = TypeVar("Item")

KEEPABLE = ("x", "u", "h", "up", "post")
# Below this share of wanted positions it is cheaper to gather rows before packing than bytes after it.
SPARSE = 0.5


@dataclass(frozen=True)
class Spec:
    """One array to fill: what it holds, how wide it is, and the tap that feeds it.

    Attributes:
        name: the array's name, `SITE` for bits and `SITE.NAME` for activations.
        columns: its columns.
        dtype: its dtype.
        taps: the taps whose outputs stand side by side in a row.
        site: the site.
        bits: whether signs are packed, or values kept.

    """

    name: str
    columns: int
    dtype: str
    taps: tuple[Tap, ...]
    site: Site
    bits: bool


def specs(model: Model, sites: Sequence[Site], keep: Sequence[str], keep_dtype: str) -> tuple[Spec, ...]:
    """List the arrays that sites and kept activations need.

    Args:
        model: the model.
        sites: where codes are read.
        keep: activations to keep beside the bits, among `x, u, h, up, post`.
        keep_dtype: `float32` or `float16`.

    Raises:
        PolytopeError: an activation that can't be kept here, or an unknown dtype.

    """
    if keep_dtype not in {"float32", "float16"}:
        raise PolytopeError(f"keep_dtype {keep_dtype!r}: choose float32 or float16")
    wanted = []
    for site in sites:
        taps = _site_taps(site)
        wanted.append(Spec(site.key, site.n_bytes, "uint8", taps, site, bits=True))
        for name in keep:
            if name not in KEEPABLE or (name == "up" and "up" not in model.block(site.layer).pre) or (site.kind == "custom" and name != "h"):
                raise PolytopeError(f"can't keep {name!r} at {site.key}; choose among {', '.join(KEEPABLE)} (up: gated MLPs only; declared sites: h only)")
            width = site.width // len(taps) if name in {"up", "post"} else site.width if name == "h" else site.d_model
            points = taps if name == "h" else ((site.layer, name),)
            wanted.append(Spec(f"{site.key}.{name}", width, keep_dtype, points, site, bits=False))  # type: ignore[arg-type]
    return tuple(wanted)


def fill(
    model: Model,
    windows: Sequence[Window],
    wanted: Sequence[Spec],
    arrays: Mapping[str, np.ndarray],
    *,
    batch_tokens: int,
    done: Callable[[int], None] = lambda _tokens: None,
) -> None:
    """Run windows through the model and fill the arrays, a row a kept token, in the windows' order.

    Args:
        model: the model.
        windows: what to read; their kept tokens own the rows one after another.
        wanted: the arrays' descriptions.
        arrays: the arrays by name, `[rows, columns]`.
        batch_tokens: tokens of one batch, pads included.
        done: told after each batch how many tokens were read.

    Raises:
        PolytopeError: a pre-activation is NaN or infinite; it names site, document and position.

    """
    first = np.concatenate([[0], np.cumsum([len(w.keep) for w in windows])])
    offset = {id(w): int(n) for w, n in zip(windows, first[:-1], strict=True)}
    pad = model.tokenizer.pad_token_id
    for batch in batches(windows, token_budget=batch_tokens, pad_id=pad if pad is not None else 0):
        rows = np.concatenate([offset[id(w)] + np.arange(len(w.keep)) for w in batch.windows])
        if len(rows):
            _run(model, batch, rows, wanted, arrays)
        done(int(batch.attention_mask.sum()))


def _run(model: Model, batch: Batch, rows: np.ndarray, wanted: Sequence[Spec], arrays: Mapping[str, np.ndarray]) -> None:
    """Read one batch: every tap once, whoever needs it."""
    which = np.concatenate([np.full(len(w.keep), i) for i, w in enumerate(batch.windows)])
    place = (which, np.concatenate([w.keep for w in batch.windows]))
    taps: dict[Tap, list[Reader]] = {}
    hooks: dict[str, list[Reader]] = {}
    for spec in wanted:
        sink = _sink(model, spec, arrays[spec.name], rows, place, batch)
        if spec.site.kind == "custom" and known_point(model, spec.site.hook) is None:
            hooks.setdefault(spec.site.hook, []).append(sink(0))
            continue
        for part, tap in enumerate(spec.taps):
            point = known_point(model, spec.site.hook) if spec.site.kind == "custom" else tap[1]
            taps.setdefault((tap[0], point), []).append(sink(part))  # type: ignore[arg-type]
    ids = torch.from_numpy(batch.input_ids)
    if taps:
        mask = torch.from_numpy(batch.attention_mask)
        read(model, ids, mask if not bool(mask.all()) else None, {tap: _all(readers) for tap, readers in taps.items()})
    if hooks:
        with torch.inference_mode():
            read_bridge(model, ids.to(model.device), {name: _all(readers) for name, readers in hooks.items()})


def _site_taps(site: Site) -> tuple[Tap, ...]:
    if site.kind == "custom":
        return ((site.layer, "h"),)
    points = ("h",) if site.kind == "pre" else tuple(site.kind.split("+"))
    return tuple((site.layer, point) for point in points)  # type: ignore[misc]


def _all(readers: Sequence[Reader]) -> Reader:
    def reader(value: Tensor) -> None:
        for each in readers:
            each(value)

    return reader


def _sink(
    model: Model, spec: Spec, array: np.ndarray, rows: np.ndarray, place: tuple[np.ndarray, np.ndarray], batch: Batch
) -> Callable[[int], Reader]:
    """Return, for each part of a row, the reader that writes it."""
    affine = next(((w, b) for s, w, b in model.custom if s == spec.site), None) if spec.site.kind == "custom" else None
    sparse = len(rows) < SPARSE * batch.input_ids.size
    earlier: list[np.ndarray] = []

    def write_bits(value: Tensor) -> None:
        with _naming(spec.site, batch, place, sparse=sparse):
            packed = pack(value[place] if sparse else value)
        packed = packed if sparse else packed[place]
        if len(spec.taps) == 1:
            array[rows] = packed
            return
        earlier.append(packed)
        if len(earlier) == len(spec.taps):
            array[rows] = _side_by_side(earlier, spec.site.width // len(spec.taps))

    def write_values(part: int) -> Reader:
        width = spec.columns // len(spec.taps)

        def reader(value: Tensor) -> None:
            array[rows, part * width : (part + 1) * width] = value[place].float().cpu().numpy()

        return reader

    def with_affine(reader: Reader) -> Reader:
        weight, bias = affine  # type: ignore[misc]
        return lambda a: reader(torch.nn.functional.linear(a.float(), weight.to(a.device), bias.to(a.device)))

    def make(part: int) -> Reader:
        reader = write_bits if spec.bits else write_values(part)
        return with_affine(reader) if affine is not None else reader

    return make


def _side_by_side(parts: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Join packed codes bit by bit; whole bytes where the width allows."""
    if width % 8 == 0:
        return np.concatenate(parts, axis=1)
    bits = [np.unpackbits(p, axis=1, count=width, bitorder="little") for p in parts]
    return np.packbits(np.concatenate(bits, axis=1), axis=1, bitorder="little")


@contextmanager
def _naming(site: Site, batch: Batch, place: tuple[np.ndarray, np.ndarray], *, sparse: bool) -> Iterator[None]:
    """Add site, document and token to the error about a value that is not finite."""
    try:
        yield
    except NotFiniteError as error:
        row, position = (place[0][error.index[0]], place[1][error.index[0]]) if sparse else error.index[:2]
        document = batch.windows[int(row)].document
        raise PolytopeError(
            f"{site.key}: {error} (document {document}, token {int(position)} of its window, neuron {error.index[-1]})"
        ) from error


def in_memory(wanted: Sequence[Spec], rows: int) -> dict[str, np.ndarray]:
    """Return empty arrays for `fill`."""
    return {spec.name: np.zeros((rows, spec.columns), spec.dtype) for spec in wanted}


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of `size`, the last one shorter."""
    stream = iter(items)
    while chunk := list(itertools.islice(stream, size)):
        yield chunk
