"""What small models and texts the tests share."""

from __future__ import annotations

import torch

SENTENCES = [
    "He sat on the bank of the river and watched the water go by.",
    "She owes the bank a lot of money, and the bank knows it.",
    "A river bank is wet; a money bank is dry.",
    "The ducks on the pond were not impressed by the new boat.",
]

def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter, biases and norms too, random values, so that nothing is hidden by a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()
