"""A network's checkpoints, and any measure of them: one table of step, quantity and value.

A directory of checkpoints holds one safetensors file a step, `step-000064.safetensors`. A measure is a function of a
checkpoint that returns numbers by name; it is asked once a step, and what it answered is kept, so that a run which is
stopped goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

Measure = Callable[["int", "dict[str, torch.Tensor]"], "Mapping[str, float]"]
_NAME = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a directory.

    Attributes:
        directory: where they are.

    """

    directory: Path

    @property
    def steps(self) -> list[int]:
        """The steps there are, in order."""
        there = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(int(name[1]) for path in there if (name := _NAME.fullmatch(path.name)))

    def path(self, step: int) -> Path:
        """Return where the checkpoint of a step is, or would be."""
        return self.directory / f"step-{step:06d}.safetensors"

    def save(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the checkpoint of a step: in part first, then under its name."""
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.path(step).with_suffix(".partial")
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, partial)
        partial.replace(self.path(step))

    def load(self, step: int) -> dict[str, torch.Tensor]:
        """Return the weights of a step, as float32.

        Raises:
            PolytopeError: no checkpoint of this step, or a file that can't be read.

        """
        if not self.path(step).is_file():
            known = ", ".join(map(str, self.steps)) or "none"
            raise PolytopeError(f"{self.directory} has no checkpoint of step {step}; there are {known}: train again")
        try:
            return {name: value.float() for name, value in load_file(self.path(step)).items()}
        except SafetensorError as error:
            raise PolytopeError(f"{self.path(step)} is no checkpoint ({error}): train again") from error


def measured(checkpoints: Checkpoints, measure: Measure, rows: Path) -> pd.DataFrame:
    """Apply a measure to every checkpoint, in order, and return one row a step and quantity.

    Args:
        checkpoints: of one network.
        measure: given the step and its weights.
        rows: a file of JSON lines, one a step, that keeps what was measured; steps that it has are not measured again.
            Remove it where the measure has changed.

    Returns:
        The columns `step`, `quantity`, `value`.

    Raises:
        PolytopeError: no checkpoints; a line of the file that can't be read.

    """
    if not checkpoints.steps:
        raise PolytopeError(f"{checkpoints.directory} has no checkpoint, step-NUMBER.safetensors: train first")
    known: dict[int, dict[str, float]] = {}
    for number, line in enumerate(rows.read_text(encoding="utf-8").splitlines() if rows.exists() else (), 1):
        try:
            entry = json.loads(line)
            known[entry["step"]] = entry["values"]
        except (ValueError, KeyError, TypeError) as error:
            raise PolytopeError(f"{rows}, line {number}, can't be read ({error!r}): remove the file") from error
    rows.parent.mkdir(parents=True, exist_ok=True)
    for step in checkpoints.steps:
        if step not in known:
            known[step] = {name: float(value) for name, value in measure(step, checkpoints.load(step)).items()}
            with rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "values": known[step]}) + "\n")
    table = [(step, name, value) for step in checkpoints.steps for name, value in known[step].items()]
    return pd.DataFrame(table, columns=["step", "quantity", "value"])
