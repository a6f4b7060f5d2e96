"""Work over several processes and machines with Ray: parts of a capture, layers of a comparison, rows of a graph.

Ray starts, places and watches the processes. What is ours is the division: a worker writes part `(i, n)` of the
store through the same writer as a capture on one machine does, so the store is the same, byte for byte, and a run
that was stopped goes on with any number of workers. A worker that dies frees its part's lock; another is started
in its place and goes on after the part's last finished shard.

The documents are read once, here, and dealt out: a worker is sent those of its own shards, a few ahead of need. So a
source that is streamed is fetched once, and only this machine must have it.

The model is sent to the workers, its weights once for each machine in Ray's shared memory: nobody loads a file, so
a model that was wrapped works as one that was loaded. The store's directory must be one that all machines see.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
import warnings
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from queue import Empty, Full, Queue, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn

from polytope_lm.codes.forward import chunks
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.searching import Neighbours, Packed
from polytope_lm.codes.store import layout
from polytope_lm.errors import PolytopeError, brief, visible
from polytope_lm.models.model import compiled_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from polytope_lm.documents import Document
    from polytope_lm.models.model import Model

    Shard = tuple[int, Sequence[Document]]
    """A shard to be: its number, its documents. At the end: how many there are in all, none."""

T = TypeVar("T")
J = TypeVar("J")
A = TypeVar("A")
K = TypeVar("K")

_log = logging.getLogger(__name__)
_DEATHS = 3  # of a part's workers, without one finished shard between them
_LOOK = 0.5  # seconds between two looks at the workers
_IN_HAND = 6  # shards, the end included, that a worker may have: two wait, one is cut, one filled, one written


@dataclass(frozen=True)
class Workers:
    """How a capture is spread.

    Attributes:
        number: workers; None: as many as the machines have processors (or graphics cards, `gpus` each).
        gpus: graphics cards a worker; 0: it runs on processors.

    """

    number: int | None = None
    gpus: float = 0


@dataclass(frozen=True)
class Job:
    """A capture that every worker does a part of.

    Attributes:
        write: writes the shards it is given of part `(i, n)` with the model, and tells
            `(characters done, characters in all, what)`.
        documents: all of them, read here.
        path: the store.
        shards: how many the documents make; None: a stream, nobody knows.
        shard_documents: documents a shard.
        characters: of all documents, if known.

    """

    write: Callable[[Model, tuple[int, int], Callable[[int, int | None, str], None], Iterable[Shard]], None]
    documents: Iterable[Document]
    path: Path
    shards: int | None
    shard_documents: int
    characters: int | None


@contextmanager
def running() -> Iterator[Any]:
    """Return Ray, connected: to `RAY_ADDRESS` or the session at hand; else one is started here, and ended again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        raise PolytopeError("engine 'ray' needs Ray: pip install -c constraints.txt 'polytope-lm[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        # What a worker prints is no output of this command's; its errors are told in one line.
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.util.register_serializer(nn.Parameter, serializer=_apart, deserializer=_together)
    try:
        yield ray
    finally:
        ray.util.deregister_serializer(nn.Parameter)
        if ours:
            ray.shutdown()


def _apart(weight: nn.Parameter) -> tuple[Any, torch.dtype, tuple[int, ...]]:
    """Return a weight as bytes that Ray keeps in shared memory, once for a machine."""
    flat = weight.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy(), flat.dtype, tuple(weight.shape)


def _together(parts: tuple[Any, torch.dtype, tuple[int, ...]]) -> nn.Parameter:
    data, dtype, shape = parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # shared memory is read-only, and nothing writes to it
        flat = torch.from_numpy(data).view(dtype)
    return nn.Parameter(flat.reshape(shape), requires_grad=False)


def _compiled(model: Model) -> dict[str, Any]:
    """Return how `part.compile(...)` was called, by the part's path: a module that is sent forgets it.

    A part that was replaced by `torch.compile(part)` remembers by itself.
    """
    found = {}
    for path, part in compiled_parts(model.hf).items():
        if part._compiled_call_impl is None:
            continue
        how = inspect.getclosurevars(part._compiled_call_impl).nonlocals.get("self")  # as torch's own pickling keeps it
        if how is None:
            raise PolytopeError(
                f"{model.name}: {path} is compiled in a way that can't be sent to Ray's workers: call {path}.compile() "
                "on it, or write the parts without Ray (part=(i, n), --shard)"
            )
        found[path] = how
    return found


@dataclass(frozen=True)
class _Placed:
    """A division that the machines at hand can hold: workers, threads of each, processors that each is given."""

    number: int
    threads: int
    processors: int


def _placed(ray: Any, workers: Workers, job: Job, threads: int | None) -> _Placed:
    """Settle how many workers there are and how many threads each has, or say why it can't be."""
    if workers.number is not None and workers.number < 1:
        raise PolytopeError(f"workers {workers.number}: at least 1")
    if workers.gpus < 0:
        raise PolytopeError(f"gpus_per_worker {workers.gpus:g}: 0 or more")
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 1)), there.get("GPU", 0)
    most = int(gpus / workers.gpus) if workers.gpus else cpus
    if not most:
        raise PolytopeError(
            f"a worker needs {workers.gpus:g} graphics cards, and Ray has {cpus} processors and {gpus:g} graphics cards"
        )
    few = most if workers.gpus else max(1, cpus // (threads or 1))
    number = workers.number or (few if job.shards is None else max(1, min(few, job.shards)))
    if number > most:
        each = f"{workers.gpus:g} graphics cards" if workers.gpus else "a processor"
        raise PolytopeError(
            f"{number} workers of {each} each, and Ray has {cpus} processors and {gpus:g} graphics cards: at most "
            f"{most} workers"
        )
    if job.shards is not None and number > job.shards:
        shards = f"{job.shards} shard{'s' * (job.shards != 1)}"
        raise PolytopeError(
            f"{number} workers, and the documents make {shards} of "
            f"{job.shard_documents:,} documents, the least that a worker does: at most {job.shards} workers, or "
            "smaller shards (shard_documents, --shard-documents)"
        )
    # A store that was begun keeps its number of threads, as bytes may depend on it, also where they share processors.
    share = max(1, cpus // number)
    return _Placed(number, threads or share, min(threads or share, share))


class _Kept(logging.Handler):
    """Keeps warnings, which Ray prints nowhere, until they are asked for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: SimpleQueue[str] = SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.words.put(record.getMessage())

    def taken(self) -> list[str]:
        return [self.words.get() for _ in range(self.words.qsize())]


class _Worker:
    """Writes one part; other threads give it documents, ask how far it is and what it has warned of, and stop it."""

    def __init__(self, model: Model, threads: int, *, device: str, compiled: Mapping[str, Any] | None = None) -> None:
        torch.set_num_threads(threads)
        self.model, self.device, self.compiled = model, device, compiled or {}
        self.characters = 0
        self.dealt: Queue[Shard] = Queue(1)
        self.stopped = threading.Event()
        self.warnings = _Kept()
        logging.getLogger("polytope_lm").addHandler(self.warnings)

    def write(self, job: Job, part: tuple[int, int]) -> None:
        def told(done: int, _total: int | None = None, _doing: str = "") -> None:
            self.characters = done
            if self.stopped.is_set():
                raise KeyboardInterrupt

        # Not when the worker is made: what fails then is told as a death, without its reason.
        model = replace(self.model, hf=self.model.hf.to(self.device))
        for path, how in self.compiled.items():
            piece = model.hf.get_submodule(path)
            piece._compiled_call_impl = how(piece._call_impl)  # as `piece.compile(...)` does
        try:
            job.write(model, part, told, self._taken())
        except KeyboardInterrupt:
            return

    def deal(self, shard: Shard) -> None:
        """Take a shard's documents, as soon as there is room for them."""
        while not self.stopped.is_set():
            try:
                self.dealt.put(shard, timeout=_LOOK)
            except Full:
                continue
            return

    def _taken(self) -> Iterator[Shard]:
        while not self.stopped.is_set():
            try:
                shard = self.dealt.get(timeout=_LOOK)
            except Empty:
                continue
            yield shard
            if not shard[1]:
                return
        raise KeyboardInterrupt

    def done(self) -> tuple[int, list[str]]:
        return self.characters, self.warnings.taken()

    def stop(self) -> None:
        self.stopped.set()


def spread(model: Model, job: Job, workers: Workers, told: Callable[[int, int | None, str], None]) -> None:
    """Capture with several workers; return when every part is written.

    Raises:
        PolytopeError: no Ray; more workers than machines or shards; what went wrong on a worker, after the
            others were stopped in order. What was written is kept.

    """
    if model.device.type != "cpu" and not workers.gpus:
        raise PolytopeError(
            f"the model is on {model.device}, and Ray's workers have no graphics card: say how many each has "
            "(gpus_per_worker, --gpus-per-worker), or load it with device='cpu'"
        )
    threads = None
    if os.path.lexists(job.path / layout.MANIFEST):
        threads = int(layout.read_manifest(job.path).get("threads") or 1)  # the bytes may depend on it
    with running() as ray:
        placed = _placed(ray, workers, job, threads)
        _Team(ray, model, job, placed, workers.gpus).work(told)


class _Team:
    """The workers of a capture, one a part."""

    def __init__(self, ray: Any, model: Model, job: Job, placed: _Placed, gpus: float) -> None:
        self.ray, self.job, self.placed = ray, job, placed
        self.model, self.compiled = ray.put(model), _compiled(model)
        self.sent = ray.put(replace(job, documents=()))
        self.device = "cuda" if gpus else "cpu"
        resources = {"num_gpus": gpus} if gpus else {"num_cpus": placed.processors}
        self.actor = ray.remote(_Worker).options(max_concurrency=4, max_restarts=0, **resources)
        self.workers: dict[int, Any] = {}
        self.dealing = _Dealing(job, placed.number)
        self.given: dict[Any, int] = {}  # what a worker has not taken yet
        self.asked: dict[Any, int] = {}
        self.characters: dict[int, int] = {}
        self.before = 0  # characters of workers that died
        self.total: int | None = None
        if job.characters is not None and job.shards:
            missing = job.shards - len(layout.committed(job.path))
            self.total = round(job.characters * missing / job.shards)
        self.deaths: dict[int, tuple[int, int]] = {}

    def work(self, told: Callable[[int, int | None, str], None]) -> None:
        """Start every part, give it documents, start it again if its worker dies, and tell how far all are together."""
        pending = {self._start(part): part for part in range(1, self.placed.number + 1)}
        looked = time.monotonic()
        try:
            while pending:
                self._deal()
                ready, _ = self.ray.wait([*pending, *self.given], timeout=_LOOK)
                for reference in ready:
                    self.given.pop(reference, None)  # if its worker died, so has what it was doing
                    part = pending.pop(reference, None)
                    if part is not None and self._died(reference, part):
                        self.before += self.characters.pop(part, 0)
                        pending[self._start(part)] = part
                if time.monotonic() - looked > _LOOK:
                    self._tell(told)
                    looked = time.monotonic()
            self.asked.clear()  # those were asked before the end
            self._tell(told, wait=10 * _LOOK)
        except BaseException:
            self._stop(pending)
            raise
        finally:
            for worker in self.workers.values():  # an error's traceback would keep them, and their models, alive
                self.ray.kill(worker)

    def _start(self, part: int) -> Any:
        self.given = {reference: its for reference, its in self.given.items() if its != part}
        self.asked = {reference: its for reference, its in self.asked.items() if its != part}
        self.dealing.again(part)
        if part in self.workers:
            self.ray.kill(self.workers[part])  # one that only could not be reached may still hold the part's lock
        self.workers[part] = worker = self.actor.remote(
            self.model, self.placed.threads, device=self.device, compiled=self.compiled
        )
        return worker.write.remote(self.sent, (part, self.placed.number))

    def _deal(self) -> None:
        """Read on, and give each worker that has taken its last shard the next one."""
        self.dealing.read()
        for part, worker in self.workers.items():
            if part not in self.given.values() and (shard := self.dealing.next(part)) is not None:
                self.given[worker.deal.remote(shard)] = part

    def _died(self, reference: Any, part: int) -> bool:
        """Take a part's answer; True if its worker is dead and another shall go on."""
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, PolytopeError):
                raise PolytopeError(f"worker {part} of {self.placed.number}: {cause}") from None
            raise PolytopeError(
                f"worker {part} of {self.placed.number}: {type(cause).__name__}: {brief(cause)}; what was written is "
                "kept"
            ) from cause
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.OutOfMemoryError) as error:
            if getattr(error, "actor_init_failed", False):
                raise PolytopeError(
                    f"worker {part} of {self.placed.number} could not be started: {_last_line(error)}"
                ) from error
            written = sum(n % self.placed.number == part - 1 for n in layout.committed(self.job.path))
            before, deaths = self.deaths.get(part, (written, 0))
            deaths = deaths + 1 if written == before else 1
            self.deaths[part] = written, deaths
            if deaths >= _DEATHS:
                raise PolytopeError(
                    f"worker {part} of {self.placed.number} died {deaths} times over one shard (memory ran out?): give "
                    "fewer workers, smaller batches (batch_tokens) or shards; what was written is kept"
                ) from error
            return True
        return False

    def _tell(self, told: Callable[[int, int | None, str], None], wait: float = 0) -> None:
        for part, worker in self.workers.items():
            if part not in self.asked.values():
                self.asked[worker.done.remote()] = part
        answered, _ = self.ray.wait(list(self.asked), num_returns=len(self.asked), timeout=wait)
        for reference in answered:
            part = self.asked.pop(reference)
            try:
                self.characters[part], warned = self.ray.get(reference)
            except self.ray.exceptions.RayError:
                continue  # it is dead: what it said last stands
            for words in warned:
                _log.warning("worker %d of %d: %s", part, self.placed.number, words)
        done = self.before + sum(self.characters.values())  # a worker that died had begun what is done again
        told(done if self.total is None else min(done, self.total), self.total, f"{self.placed.number} workers")

    def _stop(self, pending: dict[Any, int]) -> None:
        """Let the workers end where they can go on from: after the batch that is under way."""
        for worker in self.workers.values():
            worker.stop.remote()
        if pending:
            self.ray.wait(list(pending), num_returns=len(pending), timeout=30)


class _Dealing:
    """Which shards' documents each part is still to be given, and which it may have to be given again."""

    def __init__(self, job: Job, parts: int) -> None:
        self.path, self.parts = job.path, parts
        self.shards = enumerate(chunks(job.documents, job.shard_documents))
        self.read_so_far, self.ended = 0, False
        self.owed: dict[int, deque[Shard]] = {part: deque() for part in range(1, parts + 1)}
        self.dealt: dict[int, list[Shard]] = {part: [] for part in range(1, parts + 1)}

    def read(self) -> None:
        """Read on until every part has one shard to be given, or the next one's part has one."""
        while not self.ended and not (owed := self.owed[self.read_so_far % self.parts + 1]):
            for shard in islice(self.shards, 1):
                owed.append(shard)
                self.read_so_far += 1
                break
            else:
                self.ended = True
                for each_owed in self.owed.values():
                    each_owed.append((self.read_so_far, ()))

    def next(self, part: int) -> Shard | None:
        """Return the next shard of a part, if it was read."""
        if not self.owed[part]:
            return None
        shard, dealt = self.owed[part].popleft(), self.dealt[part]
        there = [layout.shard_path(self.path, number).exists() for number, _ in dealt[:-_IN_HAND]]
        kept = [old for old, done in zip(dealt, there, strict=False) if not done]
        self.dealt[part] = [*kept, *dealt[-_IN_HAND:], shard]
        return shard

    def again(self, part: int) -> None:
        """Owe a part what its worker may have had in hand when it died."""
        self.owed[part].extendleft(reversed(self.dealt[part]))
        self.dealt[part].clear()


def each(work: Callable[[J], T], jobs: Sequence[J]) -> Iterator[T]:
    """Do jobs as Ray tasks, one processor each, and yield their answers in the jobs' order.

    Args:
        work: a function of one job; it and the jobs are sent to the workers.
        jobs: what to do.

    Raises:
        PolytopeError: no Ray, or what a job raised.

    """
    with running() as ray:
        task, sent = _task(ray), ray.put(work)
        for reference in [task.remote(sent, job) for job in jobs]:
            yield _got(ray, reference)


def each_of_each(
    common: Callable[[J], A], rest: Callable[[A, K], T], jobs: Sequence[J], parts: Sequence[K]
) -> Iterator[list[T]]:
    """Do what the parts of a job have in common once, then each part, as Ray tasks; yield each job's parts in order.

    Args:
        common: a function of one job; what it returns stays in Ray's memory.
        rest: a function of what `common` returned and a part.
        jobs: what to do.
        parts: of every job.

    Raises:
        PolytopeError: as `each`.

    """
    with running() as ray:
        task, first, then = _task(ray), ray.put(common), ray.put(rest)
        made = [task.remote(first, job) for job in jobs]
        for references in [[task.remote(then, one, part) for part in parts] for one in made]:
            yield [_got(ray, reference) for reference in references]


def _task(ray: Any) -> Any:
    return ray.remote(_on_one_thread).options(num_cpus=1, max_retries=_DEATHS)


def _got(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        while isinstance(cause, ray.exceptions.RayTaskError):  # of a task whose answer this one was to take
            cause = cause.cause
        if isinstance(cause, PolytopeError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:  # tried again as often as it may be
        raise PolytopeError(f"a Ray task ended before its work did (memory ran out?): {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    """Return the last line of what Ray says, which is where it quotes the reason."""
    return visible((str(error).strip().splitlines() or [type(error).__name__])[-1][:300])


def _on_one_thread(work: Callable[..., T], *job: Any) -> T:
    torch.set_num_threads(1)
    return work(*job)


_ROWS = 20_000  # of a neighbour graph, a task


@dataclass(frozen=True)
class _Rows:
    """Finds the neighbours of some rows among all."""

    packed: Callable[[], Packed]
    k: int
    seed: int

    def __call__(self, span: tuple[int, int]) -> Neighbours:
        packed, mine = self.packed(), np.arange(*span)
        # A row is its own group, and so is left out of its own neighbours.
        return hamming.nearest(
            packed[span[0] : span[1]], packed, self.k,
            groups_queries=mine, groups_base=np.arange(len(packed)), threads=1, seed=self.seed,
        )  # fmt: skip


def graph(packed: Callable[[], Packed], rows: int, k: int, seed: int = 0) -> Neighbours:
    """Return every row's k nearest others, exactly, some thousand rows a task.

    Args:
        packed: returns the codes; it is sent to the workers and called there.
        rows: how many.
        k: neighbours of each.
        seed: of the order that breaks ties.

    Raises:
        PolytopeError: no Ray; what `hamming.nearest` refuses.

    """
    spans = [(first, min(first + _ROWS, rows)) for first in range(0, rows, _ROWS)]
    found = list(each(_Rows(packed, k, seed), spans))
    return Neighbours(np.concatenate([f.indices for f in found]), np.concatenate([f.distances for f in found]))
