"""Parallel kernels from several threads, and in processes that were forked."""

import os
import subprocess
import sys

import pytest

START = """
import multiprocessing as mp, os, threading, numpy as np
from polytope_lm.statistics.neighbours import strict_neighbours
def work(n=600):
    d = np.random.default_rng(0).random((n, n), dtype=np.float32)
    return strict_neighbours(d, np.arange(n, dtype=np.int32)[:, None], 10)[0, :3].tolist()
expected = work()
"""
THREADS = """
found = []
run = lambda: found.extend(work() == expected for _ in range(6))
threads = [threading.Thread(target=run) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(found), all(found))
"""
FORK = """
with mp.get_context("fork").Pool(1) as pool:
    try: print(pool.apply_async(work).get(60) == expected)
    except Exception as error: print(type(error).__name__, error)
"""
KEPT = """
import torch
torch.set_num_threads(1)
torch.ones(1) + torch.get_num_threads()
"""
TORCH = """
import torch, polytope_lm as plm
from small import SENTENCES
torch.set_num_threads(2)
model = plm.load("tiny-gpt2")
plm.encode(model, SENTENCES, layers=[1])
def again(threads):
    torch.set_num_threads(threads)
    return len(READ)
with mp.get_context("fork").Pool(1) as pool:
    try: print(pool.apply_async(again, (2,)).get(60))
    except Exception as error: print(type(error).__name__, error)
"""


def _run(code: str, layer: str, *, before: str = "") -> str:
    threads = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": layer}
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", before + START + code]
    env = {**os.environ, **threads, "PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    if "no threading layer" in done.stderr.lower() or "Intel TBB is required" in done.stderr:
        pytest.skip(f"{layer} is not installed")
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_parallel_kernels_run_from_several_threads(layer: str) -> None:
    assert _run(THREADS, layer) == "18 True"


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_torch_keeps_its_number_of_threads(layer: str) -> None:
    assert _run("print(torch.get_num_threads())", layer, before=KEPT) == "1"


def test_a_fork_works_or_says_spawn() -> None:
    assert _run(FORK, "workqueue") == "True"
    assert "get_context('spawn')" in _run(FORK, "omp")


@pytest.mark.parametrize(
    "read", ["plm.encode(model, SENTENCES, layers=[1])", "plm.path(model, *SENTENCES[:2], layer=1)"]
)
def test_a_model_in_a_forked_process_says_spawn(read: str) -> None:
    said = _run(TORCH.replace("READ", read), "workqueue")
    assert said.startswith("PolytopeError")
    assert "torch's threads" in said
    assert "spawn" in said
