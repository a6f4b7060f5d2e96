"""The Python of README and docs runs as it stands, page by page, from top to bottom."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
SLOW = {"how-to"}
"""Its blocks train, permute and draw for minutes."""
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.stem not in SLOW and "\n```python\n" in page.read_text("utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.finditer(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        line = page.read_text("utf-8")[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), names)  # noqa: S102 - our own pages


class _Joined(torch.nn.Module):
    """A worker's `gate_up_proj`, which returns gate and up side by side, and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        self.seen.append(x[..., :13])
        return x, None


def test_the_recipe_for_serving_packs_the_signs_of_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/scale.md").read_text("utf-8")
    (block,) = (each for each in re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "vllm" in each)
    ups = [_Joined() for _ in range(9)]
    layers = [SimpleNamespace(mlp=SimpleNamespace(gate_up_proj=up)) for up in ups]
    worker = SimpleNamespace(model_runner=SimpleNamespace(model=SimpleNamespace(model=SimpleNamespace(layers=layers))))

    class Served:
        def __init__(self, _name: str, *, enforce_eager: bool) -> None:
            assert enforce_eager

        def collective_rpc(self, function: Callable[..., object], args: tuple[int, ...]) -> list[object]:
            return [function(worker, *args)]

        def generate(self, _prompts: list[str]) -> None:
            for rows in (5, 3):  # the prompt, and then what is generated
                ups[8](torch.randn(rows, 26, generator=torch.Generator().manual_seed(rows)))

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Served))
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "")
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own page
    wanted = np.packbits(torch.cat(ups[8].seen).numpy() > 0, axis=1, bitorder="little")
    np.testing.assert_array_equal(names["slices"][0], wanted)
    assert names["llm"].collective_rpc(names["take"], args=(8,)) == [None]  # each row once


MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "polytope_lm").rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted
    assert found.failed == 0
