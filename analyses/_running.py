"""What the analyses share: words drawn from documents, files that appear whole, work over two processes."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from polytope_lm.documents import Document

Job = TypeVar("Job")

MODELS = ("smollm2-135m", "minilm-l6", "tiny-gpt2", "tiny-relu")
"""What an analysis runs on unless it is told: gated, an encoder, GELU, ReLU with biases (the premises)."""

CAUSAL = tuple(name for name in MODELS if name != "minilm-l6")
"""Those with a next token."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


PLACES = {"--data": "DATA", "--out": "DIR", "--pairs": "PAIRS.jsonl", "--senses": "SENSES"}
"""Options that name a place of one machine, and what stands for it in a result that is kept."""

PAIR_SETS = ("builtin", "senses")
"""What `--pairs` names that is no place."""


def command_typed(analysis: str, typed: Sequence[str]) -> str:
    """Return the command as it was typed, without the machine's own directories.

    Args:
        analysis: the module's name, such as `word_senses`.
        typed: its arguments.

    """

    def kept(option: str, value: str) -> str:
        if option == "--model":
            return Path(value).name if value[:1] in {".", "/"} else value  # a hub's name has a slash, too
        named = option == "--pairs" and value in PAIR_SETS
        return value if named else PLACES.get(option, value)

    words: list[str] = []
    for word in typed:
        name, given, value = word.partition("=")
        option = words[-1] if words else ""
        words.append(f"{name}={kept(name, value)}" if given else kept(option, word))
    return shlex.join(["python", "-m", f"analyses.{analysis}", *words])


@dataclass(frozen=True)
class Asked:
    """What every analysis is asked on its command line.

    Attributes:
        models: names or directories.
        given: all options, the analysis' own too.
        command: what was typed, without the machine's own directories.

    """

    models: tuple[str, ...]
    given: argparse.Namespace
    command: str

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layers that were named; None: all, or the analysis' own choice."""
        return None if self.given.layers is None else parse_layers(self.given.layers)


def asked(
    analysis: str,
    doc: str | None,
    argv: Sequence[str] | None,
    own: Callable[[argparse.ArgumentParser], object],
    *,
    models: tuple[str, ...] = MODELS,
    layers: str | None = "all",
) -> Asked:
    """Read an analysis' command line.

    Args:
        analysis: the module's name.
        doc: its docstring, whose first line is the help.
        argv: what was typed; None: this process's own.
        own: adds the options that only this analysis has.
        models: what it runs on unless it is told.
        layers: the same for `--layers`; None: the analysis chooses.

    """
    first = (doc or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m analyses.{analysis}", description=first)
    parser.add_argument("--model", action="append", help=f"a model, may be repeated (default: {', '.join(models)})")
    parser.add_argument("--out", type=Path, required=True, help="directory for results")
    chosen = layers or "four, spread over the model"
    parser.add_argument("--layers", default=layers, help=f"all, or indices such as 0,8 (default: {chosen})")
    parser.add_argument("--device", default="cpu", help="a torch device, such as cuda (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (%(default)s)")
    own(parser)
    typed = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(typed)
    return Asked(tuple(given.model or models), given, command_typed(analysis, typed))


def run(work: Callable[[], object]) -> None:
    """Do what an analysis does; a mistake ends it in one line."""
    try:
        work()
    except PolytopeError as error:
        raise SystemExit(f"error: {error}") from error


def folder_name(model: str) -> str:
    """Return a model's name as a directory's."""
    return re.sub(r"[^\w.-]+", "--", model.rstrip("/").rpartition("/")[2] if model[:1] in "./" else model)


def words_drawn(documents: Iterable[Document], per_document: int, seed: int) -> list[Document]:
    """Return the documents with `per_document` of their word spans each, drawn at random; none: left out.

    So a capture with `tokens="word-final"` stores the drawn words alone, and reads every text once.

    Args:
        documents: with labelled words.
        per_document: how many of each; all of a document that has fewer.
        seed: of the draw.

    """
    rng = np.random.default_rng(seed)
    out = []
    for each in documents:
        if each.words:
            chosen = np.sort(rng.permutation(len(each.words))[:per_document])
            out.append(replace(each, spans=tuple(each.words[i] for i in chosen)))
    return out


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all, so that an interrupted run leaves no half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def teller(name: str, what: str) -> Callable[[int, int, str], None]:
    """Say now and then how far a model is, in documents or paths."""
    before = [0.0]

    def tell(done: int, total: int, words: str) -> None:
        if time.monotonic() - before[0] > 30:
            before[0] = time.monotonic()
            print(f"  {name}: {done:,} of {total:,} {what}; {words}", flush=True)

    return tell


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the finished lines of a run; one that was cut off is done again."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        PolytopeError: no JSON there.

    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: {type(error).__name__}: {error}; remove the file, the run makes it again"
        raise PolytopeError(msg) from error


def in_processes(work: Callable[[Job], str], jobs: Sequence[Job], processes: int) -> Iterator[str]:
    """Do jobs in processes of one thread each, and yield what each says as it ends.

    Args:
        work: a function of a module, of one job.
        jobs: what to do; the order of the answers is that of the ends.
        processes: how many at once; 1 works in this process.

    """
    if processes == 1 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
            for done in as_completed([pool.submit(work, job) for job in jobs]):
                yield done.result()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Read `all` (None) or indices such as `0,8`.

    Raises:
        PolytopeError: anything else.

    """
    if text == "all":
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise PolytopeError(f"--layers {text!r} is neither `all` nor indices such as 0,8")
    return tuple(int(part) for part in text.split(","))
