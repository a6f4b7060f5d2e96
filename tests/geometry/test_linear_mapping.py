from __future__ import annotations

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.linear_mapping import curvature, linear_mapping_number, linearity, linearity_matrix, run_of
from polytope_lm.models.derivatives import Onward

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_equal_blocks_count(blocks: int) -> None:
    matrix = np.kron(np.eye(blocks), np.ones((4, 4)))
    assert linear_mapping_number(matrix) == pytest.approx(blocks)


def test_nothing_alike_gives_n() -> None:
    assert linear_mapping_number(np.eye(7)) == pytest.approx(7)


def test_unequal_blocks_give_the_entropy_of_their_sizes() -> None:
    matrix = np.zeros((4, 4))
    matrix[:3, :3] = 1
    matrix[3, 3] = 1
    assert linear_mapping_number(matrix) == pytest.approx(2 ** -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))


def test_an_affine_map_is_one_piece() -> None:
    weight, bias = RNG.standard_normal((6, 5)), RNG.standard_normal(5)
    matrix = linearity_matrix(lambda x: x @ weight + bias, RNG.standard_normal((8, 6)))
    np.testing.assert_allclose(matrix, 1)
    assert linear_mapping_number(matrix) == pytest.approx(1)


def test_a_kink_is_not_a_piece_more() -> None:
    samples = np.array([[-2.0], [-1], [1], [2]])
    matrix = linearity_matrix(np.abs, samples)
    np.testing.assert_allclose(matrix[:2, :2], 1)
    assert 0 <= matrix[0, 2] < 1
    assert 1 < linear_mapping_number(matrix) != pytest.approx(2)


def test_linearity_is_the_mean_squared_correlation() -> None:
    outputs = RNG.standard_normal((21, 4)).cumsum(axis=0)
    place = np.linspace(0, 1, 21)
    expected = np.mean([np.corrcoef(column, place)[0, 1] ** 2 for column in outputs.T])
    assert linearity(outputs) == pytest.approx(expected)
    assert curvature(outputs) == pytest.approx(1 - expected)
    # Constant outputs have no correlation, and do not count.
    assert linearity(np.column_stack([outputs, np.full(21, 3.0)])) == pytest.approx(expected)
    assert linearity(np.full((21, 3), 1e6)) == 1


def test_either_direction_is_as_linear() -> None:
    outputs = RNG.standard_normal((21, 4)).cumsum(axis=0)
    assert linearity(outputs[::-1]) == pytest.approx(linearity(outputs))


def test_what_is_no_segment_is_an_error() -> None:
    with pytest.raises(PolytopeError, match="at least 3 points"):
        linearity(np.ones((2, 3)))
    with pytest.raises(PolytopeError, match="output 1 is nan at point 2"):
        linearity(np.where(np.arange(6).reshape(3, 2) == 5, np.nan, 1.0))
    with pytest.raises(PolytopeError, match="n at least 2"):
        linearity_matrix(np.abs, np.ones((1, 2)))
    with pytest.raises(PolytopeError, match="square, symmetric and finite"):
        linear_mapping_number(np.array([[1.0, 0.2], [0.5, 1]]))


def test_any_part_of_a_network_will_do(model) -> None:
    linear = torch.nn.Linear(6, 3)
    points = RNG.standard_normal((6, 6))
    assert linear_mapping_number(linearity_matrix(run_of(linear), points)) == pytest.approx(1)
    network = torch.nn.Sequential(linear, torch.nn.ReLU(), torch.nn.Linear(3, 2))
    number = linear_mapping_number(linearity_matrix(run_of(network), points))
    assert 1 < number < 6
    by_hand = linearity_matrix(lambda x: network.double()(torch.as_tensor(x)).detach().numpy(), points)
    assert number == pytest.approx(linear_mapping_number(by_hand))
    u = RNG.standard_normal((4, 24))
    mlp = run_of(model.block(1))(u)
    theirs = model.hf.transformer.h[1].mlp(torch.as_tensor(u[None], dtype=torch.float32))[0].detach()
    np.testing.assert_allclose(mlp, theirs, atol=1e-4)
    onward = Onward(model, torch.tensor(model.tokenizer("He sat on the bank")["input_ids"]), layer=1, position=-1)
    out = run_of(onward)(u)
    np.testing.assert_allclose(out, onward.run(torch.as_tensor(u)).out.double())
    assert run_of(np.abs) is np.abs


def test_a_gated_mlp_is_a_part_too(gated) -> None:
    u = RNG.standard_normal((3, 24))
    theirs = gated.hf.model.layers[0].mlp(torch.as_tensor(u[None], dtype=torch.float32))[0].detach()
    np.testing.assert_allclose(run_of(gated.block(0))(u), theirs, atol=1e-4)


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(PolytopeError, match=r"part=3"):
        run_of(3)
    with pytest.raises(PolytopeError, match="mixture"):
        run_of(plm.load("tiny-moe").block(0))
