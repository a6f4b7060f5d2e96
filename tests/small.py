"""What small models and texts the tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path

SENTENCES = [
    "He sat on the bank of the river and watched the water go by.",
    "She owes the bank a lot of money, and the bank knows it.",
    "A river bank is wet; a money bank is dry.",
    "The ducks on the pond were not impressed by the new boat.",
]


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter, biases and norms too, random values, so that no zero or one hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def tree(directory: Path) -> dict[str, bytes | None]:
    """Every path below a directory with its content, None for directories."""
    return {
        str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None for p in sorted(directory.rglob("*"))
    }
