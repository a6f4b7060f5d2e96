"""Passes of a diff: model A's bits wait in a file while other models are read; each pass can be stopped and goes on.

A pass is a run over the same batches of windows, and a batch's flips are kept once they are counted (`paths.resume`).
Model A's bits, 3/8 byte a neuron and token with those that are near the boundary, have their place in one file, batch
by batch, with a checksum in A's own pass.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.forward import begin, in_memory, specs
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.reread import read_again
from polytope_lm.errors import PolytopeError
from polytope_lm.paths.resume import resumable
from polytope_lm.predictions.diff.result import NEAR, NEAREST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from jaxtyping import Int64

    from polytope_lm.codes.codes import Codes
    from polytope_lm.codes.forward import Spec
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.paths.resume import Entry
    from polytope_lm.tokens.windowing import Batch

BITS = "model-a.bits"


@dataclass(frozen=True, eq=False)
class Flips:
    """One model's flips against model A, by site's key.

    Attributes:
        tokens: flips of each token, `[T]`.
        neurons: flips of each neuron, `[N]`.
        turned_on: how many of these turn it on, `[N]`.
        near: how many flips are near the boundary, by threshold.

    """

    tokens: dict[str, Int64[np.ndarray, " T"]]
    neurons: dict[str, Int64[np.ndarray, " N"]]
    turned_on: dict[str, Int64[np.ndarray, " N"]]
    near: dict[tuple[str, float], int]


class Run:
    """Reads models over the same batches.

    Args:
        model: model A.
        frame: the tokens, once each.
        sites: where bits are compared.
        bits: the file in which model A's bits wait.
        steps: how many passes there will be.
        to: the directory in which passes are kept; None keeps none.
        progress: told `(done, total, what)`.

    """

    def __init__(
        self, model: Model, frame: Codes, sites: Sequence[Site], bits: IO[bytes], steps: int, to: Path | None,
        progress: Callable[[int, int, str], None] | None,
    ) -> None:  # fmt: skip
        self.frame, self.sites, self.bits, self.to, self.progress = frame, tuple(sites), bits, to, progress
        self.sizes = [len(rows) for _, rows, _ in self._batches(model)]
        self.total, self.done = steps * len(frame), 0
        self.kept = [(one.site.key, one.below, one.columns) for one in self._specs(model)]
        table = frame.tokens[["document", "position", "token_id"]].to_numpy(np.int64)
        read = hashlib.sha256(table.tobytes() + "\0".join(frame.texts).encode("utf-8", "surrogatepass"))
        self.head = {"pairs": len(self.sizes), "sites": [site.key for site in self.sites], "tokens": read.hexdigest()}
        self.head["model_a"] = dict(model.provenance)
        self.ambiguous: dict[str, int] = {}
        self.sums: list[int] = []

    def reference(self, model: Model) -> None:
        """Read model A."""
        entries = self._pass(model, "model-a", f"model A, {model.name}", {}, self._keep, self._specs(model))
        self.sums = [entry["crc32"] for entry in entries]
        near = [site.key for site in self.sites if (site.key, NEAR) in {(key, below) for key, below, _ in self.kept}]
        self.ambiguous = {key: sum(entry["ambiguous"][key] for entry in entries) for key in near}

    def flips(self, model: Model, name: str, what: str, about: Mapping[str, Any]) -> Flips:
        """Read another model and count its flips; `about` is what tells this pass from others of its name."""
        entries = self._pass(model, name, what, about, self._count, specs(model, self.sites, (), "float32"))
        ends = np.cumsum([site.width for site in self.sites])[:-1]
        neurons, turned_on = (
            sum((_unpacked(entry[part]) for entry in entries), np.zeros(sum(s.width for s in self.sites), np.int64))
            for part in ("neurons", "turned_on")
        )
        tokens = np.zeros((len(self.sites), len(self.frame)), np.int64)
        for entry in entries:
            rows = _unpacked(entry["rows"])
            tokens[:, rows] = _unpacked(entry["tokens"]).reshape(len(self.sites), len(rows))
        keys = [site.key for site in self.sites]
        near = [(key, below) for key, below, _ in self.kept if below is not None]
        return Flips(
            dict(zip(keys, tokens, strict=True)),
            dict(zip(keys, np.split(neurons, ends), strict=True)),
            dict(zip(keys, np.split(turned_on, ends), strict=True)),
            {one: sum(entry["near"][i] for entry in entries) for i, one in enumerate(near)},
        )

    def _batches(self, model: Model) -> Iterator[tuple[Batch, Int64[np.ndarray, " K"], Any]]:
        return read_again(self.frame, np.arange(len(self.frame)), model, alike=True)

    def _pass(
        self, model: Model, name: str, what: str, about: Mapping[str, Any],
        measure: Callable[[int, np.ndarray, dict[str, Any], Sequence[Spec]], Entry], wanted: Sequence[Spec],
    ) -> list[Entry]:  # fmt: skip
        """Return what is measured of each batch, the arrays of model A or of another one."""
        before = self.done

        def told(batches: int) -> None:
            self.done = before + sum(self.sizes[:batches])
            if batches and self.progress is not None:
                self.progress(self.done, self.total, what)

        def compute(number: int, batch: Batch, rows: np.ndarray) -> Entry:
            arrays = in_memory(wanted, len(rows))
            begin(model, batch, np.arange(len(rows)), wanted, arrays)()
            return measure(number, rows, arrays, wanted)

        def work(left: Sequence[int]) -> Iterator[tuple[int, Callable[[], Entry]]]:
            missing = set(left)
            for number, (batch, rows, _) in enumerate(self._batches(model) if left else ()):
                if number in missing:
                    yield number, partial(compute, number, batch, rows)

        head = {**self.head, "pass": what, **about}
        to = None if self.to is None else self.to / f"{name}.jsonl"
        return resumable(head, work, to=to, workers=1, told=told)

    def _specs(self, model: Model) -> list[Spec]:
        """Return what is kept of model A: signs, and which are near; a router's bits are no signs."""
        signs = specs(model, self.sites, (), "float32")
        return [
            one if below is None else replace(one, name=f"{one.name} near {below}", below=below)
            for one in signs
            for below in (None, *(() if one.site.kind == "router" else (NEAR, NEAREST)))
        ]

    def _place(self, number: int) -> int:
        """Return where a batch's bits begin."""
        return sum(self.sizes[:number]) * sum(columns for *_, columns in self.kept)

    def _keep(self, number: int, _rows: np.ndarray, arrays: dict[str, Any], wanted: Sequence[Spec]) -> Entry:
        """Put model A's bits in their place."""
        self.bits.seek(self._place(number))
        crc, ambiguous = 0, {}
        for one in wanted:
            self.bits.write(arrays[one.name].data)
            crc = zlib.crc32(arrays[one.name].data, crc)
            if one.below == NEAR:
                ambiguous[one.site.key] = int(np.bitwise_count(arrays[one.name]).sum())
        self.bits.flush()
        return {"crc32": crc, "ambiguous": ambiguous}

    def _count(self, number: int, rows: np.ndarray, arrays: dict[str, Any], _wanted: Sequence[Spec]) -> Entry:
        """Compare a batch with model A's bits."""
        self.bits.seek(self._place(number))
        tokens, neurons, turned_on, near, crc, differ = [], [], [], [], 0, np.zeros(0, np.uint8)
        widths = {site.key: site.width for site in self.sites}
        for key, below, columns in self.kept:
            read = self.bits.read(len(rows) * columns)
            crc = zlib.crc32(read, crc)
            if len(read) != len(rows) * columns:
                break
            bits = np.frombuffer(read, np.uint8).reshape(len(rows), columns)
            if below is not None:
                near.append(int(np.bitwise_count(differ & bits).sum()))
                continue
            differ = bits ^ arrays[key]
            tokens.append(np.bitwise_count(differ).sum(axis=1))
            neurons.append(hamming.counts(differ, widths[key]))
            turned_on.append(hamming.counts(differ & arrays[key], widths[key]))
        if crc != self.sums[number]:
            place = "the temporary file of model A's bits" if self.to is None else repr(str(self.to / BITS))
            raise PolytopeError(f"{place} was changed meanwhile: name another directory")
        counts = {"tokens": tokens, "neurons": neurons, "turned_on": turned_on}
        packed = {name: _packed(np.concatenate(each)) for name, each in counts.items()}
        return {"rows": _packed(rows), **packed, "near": near}


def _packed(counts: np.ndarray) -> str:
    """Write counts below 2^31 as text."""
    return base64.b64encode(zlib.compress(counts.astype("<i4").tobytes(), 1)).decode("ascii")


def _unpacked(text: str) -> Int64[np.ndarray, " n"]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").astype(np.int64)
