"""Paths of many pairs: ends read together, own layers solved together, later layers followed path by path.

Each path has its own evaluation points and its own prefix, so later layers are not one batch; what is shared is
the machine: while one path's roots are looked for, the model runs along the next. Pairs are prepared in chunks
whose bounds don't depend on where an earlier run ended, so that every number is the same after a resume.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from polytope_lm.errors import PolytopeError, brief, public
from polytope_lm.models.hooks import read
from polytope_lm.paths.ends import POINTS, End, check_numbers, chosen, end, place
from polytope_lm.paths.path import Path
from polytope_lm.paths.profile import STEPS, PairProfiles, header
from polytope_lm.paths.resume import resumable
from polytope_lm.paths.solve.curves import Shape
from polytope_lm.paths.trace import Found, default_evaluations, in_layer, profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path as FilePath

    from polytope_lm.models.interventions import Space
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.paths.resume import Entry

CHUNK = 64
_TOKENS = 4096  # of all prompts that are read at once


class _Job(NamedTuple):
    """What is asked of every pair; `options` are those of `trace.profile`."""

    model: Model
    space: Space
    site: Site
    shape: Shape
    position: int
    options: Mapping[str, Any]


class _Ready(NamedTuple):
    """A pair's path with the crossings of its own layer (None where it has no closed form)."""

    path: Path
    own: list[Found] | None


@public
def crossings_of_pairs(  # noqa: PLR0913
    model: Model,
    pairs: Iterable[Any],
    layer: int | None = None,
    *,
    at: str = "resid_mid",
    kind: str | None = None,
    shape: str = "line",
    position: int = -1,
    downstream: bool = True,
    evaluations: int | None = None,
    steps: int = STEPS,
    lens: bool = False,
    to: str | FilePath | None = None,
    workers: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
) -> PairProfiles:
    """Find the crossings of many pairs' paths, and where the output changes on them.

    A bad pair (no token, too long, NaN, ...) is reported in the result with its number and line; the rest
    runs. With `to`, each pair is written as soon as it and those before it are done, and a run that was
    stopped goes on from there.

    Args:
        model: the model.
        pairs: two prompts each, `(a, b)` or an object whose `prompts` are two (see `polytope_lm.pairs`);
            where it has a `line`, a bad pair is reported with it.
        layer: the block; left out with `at="embed"`.
        at: the space, as in `plm.path`.
        kind: which code of a gated MLP.
        shape: `line` or `arc`.
        position: which token of each prompt; -1 is the last.
        downstream: follow later layers, too, and the output.
        evaluations: forward evaluations of each path at most; 40, behind ReLUs 160.
        steps: equal steps of the profiles.
        lens: decode every later layer's output, too; takes several times as long.
        to: a file of JSON lines.
        workers: paths at a time; the model runs along one of them.
        progress: told the pairs done, all pairs, and in words the cost at first, then the time left.

    Returns:
        A profile for each pair.

    Raises:
        PolytopeError: no pair, something that no pair could change (an unknown space, layer, shape or kind,
            a model that reads both ways with `downstream`, too few evaluations or too many, no step), or a
            file of another run.

    """
    if isinstance(pairs, str) or not hasattr(pairs, "__iter__"):
        raise PolytopeError(f"pairs={brief(pairs)}: give a list of pairs of prompts")
    pairs = list(pairs)
    check_numbers(Integral, position=position, evaluations=evaluations, steps=steps, workers=workers)
    space, site = place(model, at, layer, kind)
    form = cast("Shape", chosen("shape", shape, get_args(Shape), "a shape"))
    evaluations = default_evaluations(model, site) if evaluations is None else evaluations
    options = {"downstream": downstream, "evaluations": evaluations, "steps": steps, "lens": lens}
    job = _Job(model, space, site, form, position, options)
    _check(job, pairs, workers)
    texts = [_texts(pair) for pair in pairs]
    lines = [int(getattr(pair, "line", None) or number + 1) for number, pair in enumerate(pairs)]
    with _cores_shared(workers):
        head = header(site, _settings(job, texts), len(pairs))
        told = _Told(progress, len(texts), cost(model, len(texts), site.layer, options))
        work = partial(_work, job, texts, lines)
        entries = resumable(head, work, to=to, workers=workers, told=told)
    return PairProfiles.from_dict({**head, "lines": entries})


@contextmanager
def _cores_shared(workers: int) -> Iterator[None]:
    """Give each worker its share of the threads: two teams on the same cores wait for each other."""
    before = torch.get_num_threads()
    share = max(1, before // workers)
    torch.set_num_threads(share)
    try:
        with threadpool_limits(share, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def cost(model: Model, pairs: int, layer: int, options: Mapping[str, Any]) -> str:
    """Say what a run will take, before anything is computed."""
    if not options["downstream"]:
        return f"{pairs:,} pairs, closed form in layer {layer}: two forward passes each"
    later = model.n_layers - layer
    size = pairs * (400 + later * (40 + 4 * options["steps"]) + 70 * options["steps"]) / 1e6
    lens = f", {later} decoded" if options["lens"] else ""
    return (
        f"{pairs:,} pairs, at most {options['evaluations']} evaluations of {later} layers each{lens}; about "
        f"{size:.1f} MB if kept"
    )


def _check(job: _Job, pairs: Sequence[Any], workers: int) -> None:
    if not len(pairs):
        raise PolytopeError("no pair: give at least one pair of prompts")
    if workers < 1:
        raise PolytopeError(f"workers={workers}: at least 1 path at a time")
    if job.options["downstream"] and not job.model.causal:
        raise PolytopeError(
            f"{job.model.name} reads both ways, so no context is left for later layers: give downstream=False"
        )
    if job.space == "embed" and (job.shape == "arc" or not job.options["downstream"]):
        raise PolytopeError("at='embed' has lines, followed downstream: leave shape and downstream out")
    if not 24 <= job.options["evaluations"] <= 1032 or job.options["steps"] < 1:
        raise PolytopeError(
            f"evaluations={job.options['evaluations']}, steps={job.options['steps']}: give 24 to 1,032 "
            "evaluations (40 is the default) and at least 1 step"
        )


def _texts(pair: Any) -> tuple[Any, Any]:
    """Return a pair's two prompts, whatever they are: a bad one is its own pair's mistake."""
    pair = getattr(pair, "prompts", pair)
    a, b = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (pair, None)
    return a, b


def _settings(job: _Job, texts: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Return everything that moves a number."""
    return {
        "model": job.model.name,
        "revision": job.model.revision,
        "dtype": str(job.model.dtype)[6:],
        "attention": job.model.attention,
        "threads": torch.get_num_threads(),
        "at": job.space,
        "shape": job.shape,
        "position": job.position,
        **job.options,
        "pairs_sha256": hashlib.sha256(json.dumps(texts, default=repr).encode()).hexdigest(),
        "version": importlib.metadata.version("polytope-lm"),
    }


def _work(
    job: _Job, texts: list[tuple[Any, Any]], lines: Sequence[int], left: Sequence[int]
) -> Iterator[tuple[int, Callable[[], Entry]]]:
    """Prepare chunks of pairs, and yield how each that is left is followed."""
    todo = set(left)
    for first in range(0, len(texts), CHUNK):
        chunk = range(first, min(first + CHUNK, len(texts)))
        if todo.isdisjoint(chunk):
            continue
        ready = _prepare(job, [texts[number] for number in chunk])
        for number, one in zip(chunk, ready, strict=True):
            if number in todo:
                yield number, partial(_entry, job, one, texts[number], lines[number])


def _entry(job: _Job, ready: _Ready | str, texts: tuple[Any, Any], line: int) -> Entry:
    """Return a pair's profile, or why it has none, without its texts."""
    if isinstance(ready, str):
        message = ready
    else:
        try:
            return {"profile": profile(ready.path, **job.options, own=ready.own).to_dict()}
        except PolytopeError as error:
            message = str(error)
    for text in texts:
        message = message.replace(repr(text), "…") if isinstance(text, str) and text else message
    return {"line": line, "bad": message}


def _prepare(job: _Job, texts: list[tuple[Any, Any]]) -> list[_Ready | str]:
    """Draw a chunk's paths and solve their own layer; for a bad pair say why."""
    ends: list[tuple[End, End] | str] = [_ends(job, pair) for pair in texts]
    good = [one for one in ends if not isinstance(one, str)]
    vectors = iter(_activations(job, [end for pair in good for end in pair]))
    drawn = [
        pair if isinstance(pair, str) else _draw(job, pair, prompts, next(vectors), next(vectors))
        for pair, prompts in zip(ends, texts, strict=True)
    ]
    solved = iter(_solve(job, [one for one in drawn if not isinstance(one, str)]))
    return [one if isinstance(one, str) else next(solved) for one in drawn]


def _solve(job: _Job, paths: list[Path]) -> list[_Ready | str]:
    """Solve the paths' own layer together; one by one where one of them can't be."""
    if job.space == "embed" or not paths:
        return [_Ready(path, None) for path in paths]
    try:
        return [_Ready(path, own) for path, own in zip(paths, in_layer(paths), strict=True)]
    except PolytopeError as error:
        return [str(error)] if len(paths) == 1 else [one for path in paths for one in _solve(job, [path])]


def _ends(job: _Job, texts: tuple[Any, Any]) -> tuple[End, End] | str:
    try:
        return end(job.model, texts[0], "A", job.position), end(job.model, texts[1], "B", job.position)
    except PolytopeError as error:
        return str(error)


def _draw(job: _Job, ends: tuple[End, End], prompts: tuple[str, str], a: np.ndarray, b: np.ndarray) -> Path | str:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return f"{job.space} of layer {job.site.layer} has NaN or infinite values; try dtype='float32'"
    path = Path(
        model=job.model, site=job.site, at=job.space, shape=job.shape, prompts=prompts,
        tokens=(ends[0].token, ends[1].token), input_ids=ends[0].ids, position=ends[0].position, a=a, b=b,
    )  # fmt: skip
    try:
        path.points(np.array([0.5]))  # an arc that can't be drawn
    except PolytopeError as error:
        return str(error)
    return path


def _activations(job: _Job, ends: list[End]) -> list[np.ndarray]:
    """Read what the paths move at the ends' positions, prompts of like lengths together, equal ones once."""
    keys = [(one.ids.tobytes(), one.position) for one in ends]
    distinct = sorted(dict(zip(keys, ends, strict=True)).items(), key=lambda one: len(one[1].ids))
    batches: list[list[tuple[tuple[bytes, int], End]]] = []
    for one in distinct:
        if not batches or len(one[1].ids) * (len(batches[-1]) + 1) > _TOKENS:
            batches.append([])
        batches[-1].append(one)
    rows = [row for batch in batches for row in read_ends(job, [one for _, one in batch])]
    found = dict(zip((key for key, _ in distinct), rows, strict=True))
    return [found[key] for key in keys]


def read_ends(job: _Job, ends: list[End]) -> list[np.ndarray]:
    """Read what the paths move at the ends' positions in one batch."""
    longest = max(len(one.ids) for one in ends)
    ids, mask = (torch.zeros(len(ends), longest, dtype=torch.long) for _ in range(2))
    for row, one in enumerate(ends):
        ids[row, : len(one.ids)] = torch.as_tensor(one.ids)
        mask[row, : len(one.ids)] = 1
    rows: list[np.ndarray] = []

    def keep(value: torch.Tensor) -> None:
        rows.extend(value[row, one.position].double().cpu().numpy() for row, one in enumerate(ends))

    read(job.model, ids, mask, {(job.site.layer, POINTS[job.space]): keep})
    return rows


class _Told:
    """Tells the cost, then what is left, in minutes."""

    def __init__(self, progress: Callable[[int, int, str], None] | None, total: int, words: str) -> None:
        self.progress, self.total, self.words = progress, total, words
        self.start, self.before = time.perf_counter(), 0

    def __call__(self, done: int) -> None:
        if self.words:
            self.before, words, self.words = done, self.words, ""
        else:
            each = (time.perf_counter() - self.start) / (done - self.before)
            words = f"{each:.2f} s a pair, about {each * (self.total - done) / 60:.0f} min left of {self.total:,} pairs"
        if self.progress is not None:
            self.progress(done, self.total, words)
