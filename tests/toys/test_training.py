"""The training loop: its schedule, its end by steps or by the clock, and a stopped run that goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from polytope_lm import PolytopeError
from polytope_lm.toys.training import Training, log_spaced, train


def a_network(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(16, 1))


def batch(step: int) -> torch.Tensor:
    return torch.randn(32, 2, generator=torch.Generator().manual_seed(step))


def loss(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (model(x)[:, 0] - x.prod(1)).square().mean()


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_learning_rate_rises_then_falls_to_a_twentieth():
    training = Training(steps=100)
    factors = [training.factor(step, 0.0) for step in range(100)]
    assert max(factors) == 1.0
    assert factors[:5] == sorted(factors[:5])
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert 0.05 <= factors[-1] < 0.06


def test_by_the_clock_the_rate_is_down_when_the_time_is_up():
    training = Training(steps=None, minutes=2, warm_up=10)
    assert [training.factor(step, 0.0) for step in (0, 9, 10)] == [0.1, 1.0, 1.0]
    assert training.factor(500, 60.0) == pytest.approx(0.525)  # half-way: the mean of 1 and a twentieth
    assert training.factor(9000, 120.0) == pytest.approx(0.05)
    assert not training.over(10**9, 119.9)
    assert training.over(11, 120.0)


def test_a_run_by_the_clock_ends():
    losses = train(a_network(), loss, batch, Training(steps=None, minutes=0.005, warm_up=5, report=0))
    assert len(losses) > 1


def test_training_lowers_the_loss_and_equals_a_loop_written_out():
    training = Training(steps=40, rate=0.01, report=0, clip=1e9, decay=0.3)
    model, plain = a_network(), a_network()
    losses = train(model.eval(), loss, batch, training)
    optimiser = torch.optim.AdamW(
        [
            {"params": [plain[0].weight, plain[3].weight], "weight_decay": 0.3},
            {"params": [plain[0].bias, plain[3].bias], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    torch.manual_seed(training.seed)
    for step in range(40):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * training.factor(step, 0.0)
        optimiser.zero_grad()
        loss(plain, batch(step)).backward()
        optimiser.step()
    assert torch.equal(weights(model), weights(plain))
    assert sum(losses[-5:]) < sum(losses[:5])


def test_the_global_generator_is_left_as_it_was():
    model, before = a_network(), torch.get_rng_state()
    train(model, loss, batch, Training(steps=3, report=0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [6, 8])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path, stop):
    training = Training(steps=12, report=0)
    whole, seen = a_network(), []
    expected = train(whole, loss, batch, training, after=seen.append)
    assert seen == list(range(13))

    def interrupt(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    state = tmp_path / "run.state"
    with pytest.raises(KeyboardInterrupt):
        train(a_network(), loss, batch, training, after=interrupt, state=state)
    again, seen = a_network(seed=5), []
    assert train(again, loss, batch, training, after=seen.append, state=state) == expected
    assert torch.equal(weights(again), weights(whole))
    assert seen == list(range(5, 13))  # the last log-spaced state before both stops is that after 4 updates
    assert train(a_network(), loss, batch, training, state=state) == expected  # a finished run does nothing more
    with pytest.raises(PolytopeError, match=r"run\.state.*steps=12.*steps=13"):
        train(a_network(), loss, batch, replace(training, steps=13), state=state)


def test_of_several_losses_the_sum_is_minimised_and_the_first_is_told():
    def two(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([loss(model, x), 0.5 * weights_now(model)])

    def one(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return loss(model, x) + 0.5 * weights_now(model)

    def weights_now(model: torch.nn.Module) -> torch.Tensor:
        return torch.cat([p.flatten() for p in model.parameters()]).square().mean()

    first, second = a_network(), a_network()
    told = train(first, two, batch, Training(steps=5, report=0))
    totals = train(second, one, batch, Training(steps=5, report=0))
    assert torch.equal(weights(first), weights(second))
    assert all(mine < total for mine, total in zip(told, totals, strict=True))


def test_a_run_needs_one_end():
    with pytest.raises(PolytopeError, match=r"steps=None.*minutes=None"):
        Training(steps=None)
    with pytest.raises(PolytopeError, match=r"steps=1000.*minutes=2"):
        Training(minutes=2, warm_up=3)
    with pytest.raises(PolytopeError, match=r"minutes=2.*warm_up"):
        Training(steps=None, minutes=2)


def test_log_spaced_steps_are_powers_of_two():
    assert [step for step in range(70) if log_spaced(step)] == [0, 1, 2, 4, 8, 16, 32, 64]
