"""Captures and comparisons over Ray's workers: the same bytes and numbers as in one process, whatever dies."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import polytope_lm as plm
from benchmarks.workers import same
from benchmarks.workers import workers as running
from polytope_lm.cli.app import app
from polytope_lm.codes.distributed import Job, Workers, _placed, _Team, _Worker, each, each_of_each, spread
from polytope_lm.codes.store.reader import CodeStore
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator

ray = pytest.importorskip("ray")
SHARD = 6
Write = Any


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One session for all tests: starting one takes seconds."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model() -> plm.Model:
    return plm.load("tiny-gpt2")


@pytest.fixture(scope="module")
def sample() -> plm.Documents:
    return plm.documents("sample", max_documents=24)


@pytest.fixture(scope="module")
def alone(model: plm.Model, sample: plm.Documents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same capture in this process, with one thread, as each of two workers has."""
    path, threads = tmp_path_factory.mktemp("alone") / "store", torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plm.capture(model, sample, to=path, layers=[1, 2], keep=("u", "h"), tokens="random:20", shard_documents=SHARD)
    finally:
        torch.set_num_threads(threads)
    return path


def with_ray(model: plm.Model, sample: plm.Documents, path: Path, workers: int = 2) -> CodeStore:
    return plm.capture(
        model, sample, to=path, layers=[1, 2], keep=("u", "h"), tokens="random:20", shard_documents=SHARD,
        engine="ray", workers=workers, progress=False,
    )  # fmt: skip


@pytest.mark.usefixtures("session")
def test_two_workers_write_what_one_process_writes(
    model: plm.Model, sample: plm.Documents, alone: Path, tmp_path: Path
) -> None:
    assert with_ray(model, sample, tmp_path / "store").complete
    assert same(alone, tmp_path / "store")


@pytest.mark.usefixtures("session")
def test_a_relative_path_is_here_wherever_the_workers_are(
    model: plm.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the session was started elsewhere
    texts = ["The river was wide", "The bank was closed"]
    store = plm.capture(
        model, texts, to="store", layers=[1], shard_documents=1, engine="ray", workers=1, progress=False
    )
    assert (tmp_path / "store" / "complete.json").is_file()
    here = plm.open_store("store")
    found = here.knn(3, layer=1, engine="ray")
    assert np.array_equal(found.indices, store.knn(3, layer=1).indices)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(("threads", "workers"), [(1, 2), (2, 2), (1, 1)])
def test_a_run_goes_on_with_another_number_of_workers(
    model: plm.Model, sample: plm.Documents, tmp_path: Path, threads: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun with so many threads a worker, it keeps them, also where two workers of two share two processors."""
    options: dict[str, Any] = {"layers": [1, 2], "keep": ("u", "h"), "tokens": "random:20", "shard_documents": SHARD}
    path, before = tmp_path / "store", torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        plm.capture(model, sample, to=tmp_path / "alone", progress=False, **options)
        plm.capture(model, sample, to=path, part=(2, 3), progress=False, **options)
    finally:
        torch.set_num_threads(before)
    there = (path / "shards" / "00001" / "shard.json").stat().st_mtime_ns
    told: list[tuple[int, int | None]] = []
    telling = nullcontext(lambda done, total=None, _doing="": told.append((done, total)))
    monkeypatch.setattr("polytope_lm.codes.capture.showing", lambda *_args, **_named: telling)
    plm.capture(model, sample, to=path, engine="ray", workers=workers, progress=False, **options)
    assert same(tmp_path / "alone", path)
    assert (path / "shards" / "00001" / "shard.json").stat().st_mtime_ns == there
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    whole = sum(len(document.text) for document in sample)
    assert len(set(totals)) == 1
    assert 0 < totals[0] < whole  # what was there is not to be done
    assert done[-1] > 0.8 * totals[0]


def test_what_a_worker_warns_of_is_told(model: plm.Model, tmp_path: Path) -> None:
    def write(_model: plm.Model, _part: Any, told: Any, _shards: Any) -> None:
        logging.getLogger("polytope_lm.codes.forward").warning("memory ran out with batches of %d tokens", 4096)
        told(7, 9, "")

    threads = torch.get_num_threads()
    worker = _Worker(model, threads, device="cpu")
    try:
        worker.write(job(tmp_path, write), (1, 1))
        assert worker.done() == (7, ["memory ran out with batches of 4096 tokens"])
        assert worker.done() == (7, [])
    finally:
        logging.getLogger("polytope_lm").removeHandler(worker.warnings)


@pytest.mark.usefixtures("session")
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("written", [0, 1])
def test_a_killed_worker_is_replaced(
    model: plm.Model, sample: plm.Documents, alone: Path, tmp_path: Path, written: int
) -> None:
    """Killed while it loads the model, and once so many shards are written."""
    killed = []

    def kill() -> None:
        before, finished = set(running()), tmp_path / "store" / "shards"
        for _ in range(6000):
            if new := sorted(set(running()) - before):
                if not written:
                    time.sleep(0.3)
                elif len(list(finished.glob("*/shard.json"))) < written:
                    time.sleep(0.005)
                    continue
                os.kill(new[0], signal.SIGKILL)
                killed.append(new[0])
                return
            time.sleep(0.005)

    thread = threading.Thread(target=kill)
    thread.start()
    with_ray(model, sample, tmp_path / "store")
    thread.join()
    assert killed
    assert same(alone, tmp_path / "store")


@pytest.mark.usefixtures("session")
def test_documents_are_read_once_and_dealt_out_and_again_if_a_worker_dies(model: plm.Model, tmp_path: Path) -> None:
    """A generator has one pass; what a dead worker had is given to the next, what was finished long ago is not."""

    def write(_model: plm.Model, part: tuple[int, int], _told: Any, shards: Any) -> None:
        with (tmp_path / f"part-{part[0]}").open("a", encoding="utf-8") as taken:
            for number, documents in shards:
                if number == 21 and not (tmp_path / "died").exists():
                    (tmp_path / "died").touch()
                    os._exit(1)
                shard = tmp_path / "shards" / f"{number:05d}"
                if documents and shard.exists():  # a store's writer only checks it
                    (tmp_path / f"again-{number}").touch()
                    continue
                print(number, *(document.id for document in documents), file=taken, flush=True)
                if documents:
                    shard.mkdir(parents=True)

    documents = (Document(id=f"d{i}", text="text") for i in range(2 * 30 + 1))
    spread(model, Job(write, documents, tmp_path, None, 2, None), Workers(2), silent)  # type: ignore[arg-type]
    every = {n: [f"d{2 * n}", f"d{2 * n + 1}"] for n in range(30)} | {30: ["d60"]}
    odd = [line.split() for line in (tmp_path / "part-1").read_text(encoding="utf-8").splitlines()]
    assert odd == [[str(n), *every[n]] for n in range(0, 31, 2)] + [["31"]]  # at the end: how many there are
    even = [line.split() for line in (tmp_path / "part-2").read_text(encoding="utf-8").splitlines()]
    assert even == [[str(n), *every[n]] for n in range(1, 30, 2)] + [["31"]]
    again = {int(path.name.removeprefix("again-")) for path in tmp_path.glob("again-*")}
    assert again <= set(range(9, 21, 2))


@pytest.mark.usefixtures("session")
def test_a_source_that_breaks_off_ends_the_workers_with_its_own_line(model: plm.Model, tmp_path: Path) -> None:
    def documents() -> Iterator[Document]:
        yield Document(id="a", text="text")
        raise PolytopeError("corpus.jsonl: line 2 is no JSON")

    def write(_model: plm.Model, _part: tuple[int, int], _told: Any, shards: Any) -> None:
        for _ in shards:
            pass

    with pytest.raises(PolytopeError, match=r"^corpus\.jsonl: line 2 is no JSON"):
        spread(model, Job(write, documents(), tmp_path, None, 1, None), Workers(1), silent)


@pytest.mark.usefixtures("session")
def test_compiled_parts_and_attention_are_the_workers_own(tokenizer: Any, gpt2: Any, tmp_path: Path) -> None:
    """What `compile` was told is sent along, and the manifest's word for it is true where the work was done."""

    def compiling(graph: Any, _inputs: Any) -> Any:
        (tmp_path / f"compiled-{os.getpid()}").touch()
        return graph.forward

    hf = gpt2()
    hf.set_attn_implementation("eager")
    for block in hf.transformer.h:
        block.attn.compile(backend=compiling)
    compiled = plm.wrap(hf, tokenizer, name="compiled")
    texts, threads = [f"The river number {i} was wide" for i in range(8)], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = plm.capture(compiled, texts, to=tmp_path / "here", shard_documents=4)
    finally:
        torch.set_num_threads(threads)
    assert (here.provenance["compiled"], here.provenance["attention"]) == ("attn", "eager")
    (tmp_path / f"compiled-{os.getpid()}").unlink()
    plm.capture(compiled, texts, to=tmp_path / "ray", shard_documents=4, engine="ray", workers=2, progress=False)
    assert list(tmp_path.glob("compiled-*"))  # by a worker
    assert same(tmp_path / "here", tmp_path / "ray")


@pytest.mark.usefixtures("session")
def test_what_was_compiled_in_another_way_is_refused(tokenizer: Any, gpt2: Any, tmp_path: Path) -> None:
    hf = gpt2()
    hf.transformer.h[1].attn._compiled_call_impl = hf.transformer.h[1].attn._call_impl
    with pytest.raises(PolytopeError, match=r"^mine: transformer\.h\.1\.attn is compiled in a way that can't be sent"):
        spread(plm.wrap(hf, tokenizer, name="mine"), job(tmp_path, None), Workers(1), silent)


@pytest.mark.usefixtures("session")
def test_a_worker_of_another_version_is_refused_by_the_store(
    model: plm.Model, sample: plm.Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("polytope_lm.codes.plan._version", lambda _package: "0.0.1")
        options: dict[str, Any] = {"layers": [1], "shard_documents": SHARD, "progress": False}
        plm.capture(model, sample, to=tmp_path / "store", part=(2, 4), **options)
    with pytest.raises(PolytopeError, match=r"^worker 1 of 1: .* with versions\..* '0\.0\.1', this run has") as raised:
        plm.capture(model, sample, to=tmp_path / "store", engine="ray", workers=1, **options)
    assert "\n" not in str(raised.value)
    ended_by = time.monotonic() + 20
    while running():  # the error is still at hand, the workers and their models are not
        assert time.monotonic() < ended_by
        time.sleep(0.05)


def begun(out: Path) -> subprocess.Popen[str]:
    """Start the command in a group of processes of its own, and return once some of its shards are there."""
    # Where the tests run in a shell's background, Ctrl-C is ignored by what they start.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heeding}; from polytope_lm.cli.app import app; app()"]
    command += ["capture", "tiny-gpt2", "sample", "--out", str(out), "--keep", "u,h", "--shard-documents", "1"]
    command += ["--engine", "ray", "--workers", "2"]
    before = len(list(out.glob("shards/[0-9]*")))
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(list(out.glob("shards/[0-9]*"))) < before + 3:
        assert run.poll() is None
        time.sleep(0.005)
    return run


@pytest.mark.usefixtures("session")
@pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")
def test_a_run_interrupted_resumed_killed_and_killed_again_is_the_same(model: plm.Model, tmp_path: Path) -> None:
    out, threads, before = tmp_path / "store", torch.get_num_threads(), set(running())
    run = begun(out)
    os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does, to all processes of the terminal
    _, said = run.communicate(timeout=200)
    assert run.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("interrupted")
    assert not (out / "complete.json").exists()
    assert not list(out.glob(".lock.*"))  # every worker ended in order
    for _ in range(2):
        there = len(list(out.glob("shards/[0-9]*")))
        run = begun(out)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=200)
        assert not (out / "complete.json").exists()
        assert len(list(out.glob("shards/[0-9]*"))) > there
        ended_by = time.monotonic() + 100
        while set(running()) - before:  # they see that nobody is there any more
            assert time.monotonic() < ended_by
            time.sleep(0.05)
    options: dict[str, Any] = {"keep": ("u", "h"), "shard_documents": 1, "progress": False}
    plm.capture(model, "sample", to=out, engine="ray", **options)
    torch.set_num_threads(1)
    try:
        plm.capture(model, "sample", to=tmp_path / "alone", **options)
    finally:
        torch.set_num_threads(threads)
    assert same(tmp_path / "alone", out)


def job(path: Path, write: Write, shards: int = 4) -> Job:
    return Job(write, (), path, shards, SHARD, None)


def silent(_done: int, _total: int | None, _doing: str) -> None:
    """Tell nobody."""


@pytest.mark.usefixtures("session")
def test_one_workers_full_disk_is_one_line_and_stops_the_others(model: plm.Model, tmp_path: Path) -> None:
    mark = tmp_path / "stopped"

    def write(_model: plm.Model, part: tuple[int, int], told: Any, _shards: Any) -> None:
        if part[0] == 2:
            raise PolytopeError("shards/00001: the disk is full: free some space")
        try:
            while True:
                time.sleep(0.05)
                told(1)
        except KeyboardInterrupt:
            mark.write_text("in order", encoding="utf-8")
            raise

    with pytest.raises(PolytopeError, match=r"^worker 2 of 2: shards/00001: the disk is full") as raised:
        spread(model, job(tmp_path / "store", write), Workers(2), silent)
    assert "\n" not in str(raised.value)
    assert mark.exists()


@pytest.mark.usefixtures("session")
def test_a_disk_that_fills_up_loses_nothing(
    model: plm.Model, sample: plm.Documents, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, write_whole = tmp_path / "full", spread

    def on_a_full_disk(a_model: plm.Model, a_job: Job, *rest: Any) -> None:
        write, pwrite = a_job.write, os.pwrite

        def writing(its_model: plm.Model, part: tuple[int, int], told: Any, shards: Any) -> None:
            def limited(*args: Any) -> int:
                if part[0] == 2 and full.exists():
                    raise OSError(errno.ENOSPC, "No space left on device")
                return pwrite(*args)

            os.pwrite = limited
            write(its_model, part, told, shards)

        write_whole(a_model, replace(a_job, write=writing), *rest)

    monkeypatch.setattr("polytope_lm.codes.distributed.spread", on_a_full_disk)
    full.touch()
    with pytest.raises(PolytopeError, match=r"^worker 2 of 2: .* the disk is full: free some space") as raised:
        with_ray(model, sample, tmp_path / "store")
    assert "\n" not in str(raised.value)
    full.unlink()
    assert with_ray(model, sample, tmp_path / "store").complete
    assert same(alone, tmp_path / "store")


@pytest.mark.usefixtures("session")
def test_a_worker_that_dies_over_and_over_is_told(model: plm.Model, tmp_path: Path) -> None:
    def write(_model: plm.Model, _part: tuple[int, int], _told: Any, _shards: Any) -> None:
        os._exit(1)

    with pytest.raises(PolytopeError, match="worker 1 of 1 died 3 times over one shard"):
        spread(model, job(tmp_path, write), Workers(1), silent)


@pytest.mark.usefixtures("session")
def test_another_model_is_refused_by_its_store(model: plm.Model, sample: plm.Documents, alone: Path) -> None:
    other = plm.wrap(plm.load("tiny-relu").hf, model.tokenizer, name="tiny-gpt2")
    with pytest.raises(PolytopeError, match=r"^worker \d of 2: .* was written with .*, this run has") as raised:
        with_ray(other, sample, alone)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("workers", "said"),
    [
        (Workers(0), "workers 0: at least 1"),
        (Workers(2, gpus=-1), "gpus_per_worker -1: 0 or more"),
        (Workers(9), "9 workers of a processor each, and Ray has 2 processors"),
        (Workers(1, gpus=1), "a worker needs 1 graphics cards, and Ray has"),
        (Workers(2), "2 workers, and the documents make 1 shard of 6 documents"),
    ],
)
def test_what_cannot_be_placed_is_said(model: plm.Model, tmp_path: Path, workers: Workers, said: str) -> None:
    with pytest.raises(PolytopeError, match=said):
        spread(model, job(tmp_path, None, shards=1), workers, silent)


@pytest.mark.usefixtures("session")
def test_the_command_says_at_once_that_there_is_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--engine", "ray", "--workers", "1", "--gpus-per-worker", "0.5"]
    with pytest.raises(SystemExit) as ended:
        app(["capture", "tiny-gpt2", "sample", "--out", str(tmp_path), *options])
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert "a worker needs 0.5 graphics cards, and Ray has 2 processors and 0 graphics cards" in said[-1]


class PretendRay:
    """A cluster of 16 processors and 8 graphics cards whose workers answer, or die, as they are told."""

    exceptions = ray.exceptions

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.made: list[Any] = []
        self.killed: list[Any] = []
        self.resources: dict[str, float] = {}

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 16, "GPU": 8}

    def put(self, what: Any) -> Any:
        return what

    def remote(self, _class: Any) -> Any:
        def options(**resources: Any) -> Any:
            self.resources = {name: each for name, each in resources.items() if name.startswith("num_")}
            return SimpleNamespace(remote=make)

        def make(*_given: Any, **named: Any) -> Any:
            call = SimpleNamespace(remote=lambda *_: object())
            self.made.append(SimpleNamespace(write=call, deal=call, done=call, stop=call, **named))
            return self.made[-1]

        return SimpleNamespace(options=options)

    def wait(self, references: list[Any], **_named: Any) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, _reference: Any) -> Any:
        answer = self.answers.pop(0) if self.answers else (0, [])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, worker: Any) -> None:
        self.killed.append(worker)


@pytest.mark.parametrize(
    ("workers", "threads", "number", "each_has", "resources"),
    [
        (Workers(gpus=1), None, 8, 2, {"num_gpus": 1}),
        (Workers(gpus=0.5), None, 16, 1, {"num_gpus": 0.5}),
        (Workers(3, gpus=2), None, 3, 5, {"num_gpus": 2}),
        (Workers(gpus=1), 4, 8, 4, {"num_gpus": 1}),
        (Workers(), 4, 4, 4, {"num_cpus": 4}),
    ],
)
def test_workers_are_placed_by_cards_or_processors(
    model: plm.Model, tmp_path: Path, workers: Workers, threads: int | None, number: int, each_has: int, resources: Any
) -> None:
    pretend, wanted = PretendRay(*[None] * number), job(tmp_path, None, shards=100)
    placed = _placed(pretend, workers, wanted, threads)
    assert (placed.number, placed.threads) == (number, each_has)
    _Team(pretend, model, wanted, placed, workers.gpus).work(silent)
    assert pretend.resources == resources
    assert [worker.device for worker in pretend.made] == ["cuda" if workers.gpus else "cpu"] * number
    assert pretend.killed == pretend.made  # at the end


@pytest.mark.parametrize(
    "death", [ray.exceptions.OutOfMemoryError("the node"), ray.exceptions.ActorUnavailableError("lost", None)]
)
def test_a_worker_that_memory_or_the_network_ended_is_replaced(model: plm.Model, tmp_path: Path, death: Any) -> None:
    pretend, wanted = PretendRay(death, None), job(tmp_path, None)
    _Team(pretend, model, wanted, _placed(pretend, Workers(1), wanted, None), 0).work(silent)
    assert len(pretend.made) == 2
    assert pretend.killed[0] is pretend.made[0]  # before the second may want its lock


def test_a_worker_that_can_not_be_started_is_told_with_the_reason(model: plm.Model, tmp_path: Path) -> None:
    cause = ray.exceptions.RayTaskError("make", "Traceback\nModuleNotFoundError: No module named 'polytope_lm'", None)
    pretend, wanted = PretendRay(ray.exceptions.ActorDiedError(cause)), job(tmp_path, None)
    team = _Team(pretend, model, wanted, _placed(pretend, Workers(1), wanted, None), 0)
    with pytest.raises(PolytopeError, match=r"^worker 1 of 1 could not be started: ModuleNotFoundError: .*") as raised:
        team.work(silent)
    assert "\n" not in str(raised.value)


def test_a_card_that_can_not_be_used_fails_where_the_reason_is_told(model: plm.Model, tmp_path: Path) -> None:
    """Not while the worker is made, which is told as a death."""
    worker = _Worker(model, torch.get_num_threads(), device="cuda:99")
    logging.getLogger("polytope_lm").removeHandler(worker.warnings)
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda"):
        worker.write(job(tmp_path, None), (1, 1))


@pytest.mark.parametrize(("gpus", "end"), [(0.0, "under a minute on this machine in one process"), (1.0, "B")])
def test_the_cost_says_whose_time_it_is(
    model: plm.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    gpus: float, end: str,
) -> None:  # fmt: skip
    def stop(*_: Any) -> None:
        raise PolytopeError("enough")

    monkeypatch.setattr("polytope_lm.codes.distributed.spread", stop)
    with pytest.raises(PolytopeError, match="enough"):
        plm.capture(model, ["A line"], to=tmp_path, engine="ray", gpus_per_worker=gpus, progress=True)
    told = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("capture: 1 document"))
    assert told.endswith(end)  # cards' speed is not known here: no time


def test_a_model_on_a_card_needs_workers_with_cards(
    model: plm.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model), "device", property(lambda _: torch.device("cuda:0")))
    with pytest.raises(PolytopeError, match=r"the model is on cuda:0, .* \(gpus_per_worker"):
        spread(model, job(tmp_path, None), Workers(2), silent)


def test_without_ray_the_extra_is_named(
    model: plm.Model, sample: plm.Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PolytopeError, match=r"needs Ray: pip install .*\[ray\]"):
        with_ray(model, sample, tmp_path / "store")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "spark"}, "engine 'spark': here or ray"),
        ({"workers": 2}, "they need engine='ray'"),
        ({"engine": "ray", "part": (1, 2)}, "Ray's workers take the parts"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    model: plm.Model, sample: plm.Documents, tmp_path: Path, options: Any, said: str
) -> None:
    with pytest.raises(PolytopeError, match=said):
        plm.capture(model, sample, to=tmp_path / "store", progress=False, **options)


@pytest.mark.usefixtures("session")
def test_layers_compared_as_tasks_give_the_same_numbers(alone: Path) -> None:
    store = CodeStore(alone)
    options: dict[str, Any] = {"k": 6, "resamples": 8, "comparators": False, "extra": "token identity"}
    several = {
        engine: plm.predictions.clusters_by_label(store, None, ["class", "group"], engine=engine, **options)
        for engine in ("here", "ray")
    }
    assert set(several["here"]) == set(several["ray"]) == {"class", "group"}
    assert any(each.verdict.rounds > 1 for found in several["here"].values() for each in found.layers)
    for label, here in several["here"].items():
        assert repr(here.layers) == repr(several["ray"][label].layers)
        assert here.tokens.equals(several["ray"][label].tokens)
        assert set(here.timings) == set(several["ray"][label].timings)
    one = {e: plm.predictions.clusters(store, 1, "class", engine=e, **options) for e in ("here", "ray")}
    assert repr(one["here"].layers) == repr(one["ray"].layers)


@pytest.mark.usefixtures("session")
def test_the_command_compares_layers_as_tasks(alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["test", "clusters", str(alone), "--label", "class", "--layers", "1,2", "--resamples", "4"]
    for engine in ("here", "ray"):
        with pytest.raises(SystemExit, match="0"):
            app([*wanted, "--out", str(tmp_path / engine), "--engine", engine])
    capsys.readouterr()
    one, many = (plm.load_result(tmp_path / engine) for engine in ("here", "ray"))
    assert repr(one.layers) == repr(many.layers)


@pytest.mark.usefixtures("session")
def test_a_task_whose_worker_dies_is_done_again(tmp_path: Path) -> None:
    def work(job: int) -> int:
        if job == 1 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(1)
        return 10 * job

    assert list(each(work, [0, 1, 2])) == [0, 10, 20]
    assert (tmp_path / "died").exists()


@pytest.mark.usefixtures("session")
def test_a_task_that_dies_over_and_over_is_one_line() -> None:
    def work(_job: int) -> None:
        os._exit(1)

    with pytest.raises(PolytopeError, match=r"^a Ray task ended before its work did \(memory ran out\?\): ") as raised:
        list(each(work, [0]))
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("session")
def test_what_a_common_task_raises_is_the_jobs_own_line() -> None:
    def common(job: int) -> int:
        if job == 2:
            raise PolytopeError("layer 2 has none")
        return 10 * job

    def rest(found: int, part: str) -> str:
        return f"{part}{found}"

    done = each_of_each(common, rest, [1, 2], ["a", "b"])
    assert next(done) == ["a10", "b10"]
    with pytest.raises(PolytopeError, match=r"^layer 2 has none$"):
        next(done)


def test_an_unknown_engine_is_refused(alone: Path) -> None:
    with pytest.raises(PolytopeError, match="engine 'dask': here or ray"):
        plm.predictions.clusters(CodeStore(alone), label="class", k=6, engine="dask")


@pytest.mark.usefixtures("session")
def test_a_graph_made_of_tasks_is_the_graph(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polytope_lm.codes.distributed._ROWS", 150)  # several tasks, the last one shorter
    store = CodeStore(alone)
    assert len(store) % 150
    one, many = store.knn(5, layer=1, seed=4), store.knn(5, layer=1, seed=4, engine="ray")
    assert not np.array_equal(one.indices, store.knn(5, layer=1).indices)  # there are ties, and the order breaks them
    assert np.array_equal(one.indices, many.indices)
    assert np.array_equal(one.distances, many.distances)
    near = store.neighbourhoods(5, layer=1, seed=4, engine="ray")
    assert np.array_equal(near.by_code, one.indices)
