"""The one training loop: toy networks, the packaged language models and checkpoint series all go through it.

AdamW on whatever loss it is given. Biases and norms don't decay. The rate rises linearly over a warm-up, then follows a
cosine down to a twentieth. A run is as long as a number of steps, or as a number of minutes: then the cosine follows
the clock, so that the rate is down when the time is up, however fast the machine is.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FLOOR = 0.05  # of the peak rate, at the end


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        steps: how many updates; or None, and `minutes` says how long.
        minutes: of wall-clock time after the first update (which may compile).
        rate: the peak learning rate.
        warm_up: updates over which the rate rises; None: a twentieth of `steps`.
        decay: weight decay of the matrices.
        clip: largest norm of the gradient.
        seed: of the dropout.
        report: print the loss every so many steps; 0: never.

    """

    steps: int | None = 1000
    minutes: float | None = None
    rate: float = 3e-3
    warm_up: int | None = None
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 1
    report: int = 50

    def __post_init__(self) -> None:
        """Refuse a run without an end."""
        if (self.steps is None) == (self.minutes is None):
            raise PolytopeError(f"steps={self.steps} and minutes={self.minutes}: give one of the two")
        if self.minutes is not None and self.warm_up is None:
            raise PolytopeError(f"minutes={self.minutes} needs warm_up: the number of steps is not known beforehand")

    def factor(self, step: int, elapsed: float) -> float:
        """Return the learning rate's factor at an update; `elapsed` is in seconds."""
        warm_up = max(1, (self.steps or 0) // 20) if self.warm_up is None else self.warm_up
        if step < warm_up:
            return (step + 1) / warm_up
        if self.minutes is not None:
            done = min(1.0, elapsed / (60 * self.minutes))
        else:
            done = (step - warm_up) / max(1, (self.steps or 0) - warm_up)
        return FLOOR + (1 - FLOOR) / 2 * (1 + math.cos(math.pi * done))

    def over(self, step: int, elapsed: float) -> bool:
        """Whether the run ends before this update."""
        return step >= self.steps if self.steps is not None else elapsed >= 60 * (self.minutes or 0)


def log_spaced(step: int) -> bool:
    """Whether a number of updates is 0 or a power of two.

    Examples:
        >>> [step for step in range(20) if log_spaced(step)]
        [0, 1, 2, 4, 8, 16]

    """
    return step & (step - 1) == 0


def optimiser_of(model: torch.nn.Module, training: Training) -> torch.optim.AdamW:
    """Return AdamW with two groups: matrices decay, norms and biases do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = True if parameters[0].is_cuda else None
    return torch.optim.AdamW(groups, lr=training.rate, betas=(0.9, 0.95), fused=fused)


def train(
    model: torch.nn.Module,
    loss: Callable[[torch.nn.Module, Any], torch.Tensor],
    batches: Callable[[int], Any],
    training: Training,
    *,
    after: Callable[[int], None] = lambda _step: None,
    state: Path | None = None,
    recipe: str = "",
) -> list[float]:
    """Train a model in place and return its losses, one an update; the model is left in train mode.

    Args:
        model: any module; it stays on its device.
        loss: of the model on a batch: a scalar, or several, whose sum is minimised and the first of which is told.
        batches: the batch of a given update, counted from 0. It is asked for every update in order, also for those
            that a run which goes on has behind it.
        training: how.
        after: called with the number of updates done: 0 before the first, then after every one. It may read the model.
        state: a file that keeps what the run needs to go on, written with every report, at log-spaced steps and at the
            end. A run that finds it goes on from there and ends with the same weights.
        recipe: what else decides the weights; the state of another recipe is refused.

    Raises:
        PolytopeError: the state is of another recipe or another `training`.

    """
    about = f"{recipe} {replace(training, report=0)}"
    optimiser = optimiser_of(model, training)
    losses: list[torch.Tensor] = []
    step, before = 0, 0.0
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        if state is not None and state.exists():
            kept = torch.load(state, weights_only=True)
            if kept["recipe"] != about:
                raise PolytopeError(f"{state} is of another recipe, {kept['recipe']}, not {about}: remove it")
            model.load_state_dict(kept["model"])
            optimiser.load_state_dict(kept["optimiser"])
            torch.set_rng_state(kept["random"])
            step, before = kept["step"], kept["elapsed"]
            losses = list(kept["losses"].to(next(model.parameters()).device))
            for behind in range(step):
                batches(behind)
        else:
            after(0)
        began, elapsed = time.monotonic(), before
        while not training.over(step, elapsed):
            for group in optimiser.param_groups:
                group["lr"] = training.rate * training.factor(step, elapsed)
            value = loss(model, batches(step))
            optimiser.zero_grad()
            torch.autograd.backward(value.sum())
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            optimiser.step()
            losses.append(value.detach().reshape(-1)[0])
            step += 1
            if step == 1:  # the first update may compile: the clock starts behind it
                losses[-1].item()
                began = time.monotonic()
            told = training.report > 0 and step % training.report == 0
            if told:
                mean = torch.stack(losses[-training.report :]).mean().item()  # also waits for the device
                print(f"step {step}: loss {mean:.3f}, {time.monotonic() - began + before:.0f} s", file=sys.stderr)
            elapsed = time.monotonic() - began + before
            after(step)
            if state is not None and (told or log_spaced(step) or training.over(step, elapsed)):
                everything = {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "random": torch.get_rng_state(),
                    "step": step,
                    "recipe": about,
                    "elapsed": elapsed,
                    "losses": torch.stack(losses).cpu(),
                }
                torch.save(everything, partial := state.with_suffix(".partial"))
                partial.replace(state)
    return torch.stack(losses).tolist() if losses else []
