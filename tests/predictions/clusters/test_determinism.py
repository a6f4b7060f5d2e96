"""The same seed gives the same bytes, in another process and under another order of hashes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
import polytope_lm as plm
from polytope_lm.documents import Document, Span
torch.set_num_threads(1)
rng = np.random.default_rng(0)
known = ["river", "bank", "money", "boat", "water", "duck"]
documents = []
for i in range(14):
    words = [known[j] for j in rng.integers(0, 6, 9)]
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    spans = tuple(Span(int(s), int(s) + len(w), {"upos": "ABC"[int(rng.integers(3))], "form": w})
                  for s, w in zip(starts, words))
    documents.append(Document(f"d{i}", " ".join(words), {}, spans))
model = plm.load("tiny-gpt2")
codes = plm.encode(model, documents, layers=[0, 2], keep=("u", "h", "x", "post"), tokens="word-final")
extra = sys.argv[2] or ()
found = plm.predictions.clusters(codes, label="upos", k=4, resamples=8, seed=5, extra=extra)
found.save(sys.argv[1])
"""


def _run(folder: Path, hashes: str, extra: str) -> dict[str, object]:
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": hashes, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), extra], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())


def test_result_json_is_the_same_bytes_but_for_timings(tmp_path: Path) -> None:
    data = [_run(tmp_path / hashes, hashes, "all") for hashes in ("0", "12345")]
    for each in data:
        assert each.pop("timings")
        assert len(each["layers"][0]["representations"]) > 20
    texts = [json.dumps(each, indent=1, ensure_ascii=False) for each in data]  # the order of keys counts
    assert texts[0] == texts[1]
    tables = [(tmp_path / hashes / "tokens.parquet").read_bytes() for hashes in ("0", "12345")]
    assert hashlib.sha256(tables[0]).digest() == hashlib.sha256(tables[1]).digest()
