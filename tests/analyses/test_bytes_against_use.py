"""What some bytes of a token buy: the schemes against plain arithmetic, and a small run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from analyses import bytes_against_use as use

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("faiss", reason="needs the extra dev")
RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((20, 768)) * 1.5
FIT, H = (
    (CENTRES[RNG.integers(20, size=n)] + RNG.standard_normal((n, 768)) + 0.3).astype(np.float32) for n in (400, 150)
)


def plain_hamming(bits: np.ndarray) -> np.ndarray:
    return (bits[:, None] != bits[None]).sum(-1)


def test_every_scheme_keeps_its_bytes_and_says_what_it_cannot() -> None:
    for name, (scheme, _) in use.SCHEMES.items():
        for budget in (48, 96):
            distance = scheme(FIT, H, budget, 0)
            assert distance.shape == (150, 150)
            if name != "RaBitQ":  # its queries are floats
                np.testing.assert_allclose(distance, distance.T, atol=1e-4, err_msg=name)
                assert (distance >= distance.diagonal()[:, None] - 1e-3).all(), name
    assert use.top_bits(FIT, H, 192, 0) is None  # 1,536 bits of 768 neurons
    assert use.sign_and_magnitude(FIT, H, 192, 0) is not None
    assert use.sign_and_magnitude(FIT, H, 384, 0) is None
    assert use.product_quantised(FIT[:100], H, 48, 0) is None


def test_bits_are_signs_of_the_neurons_with_the_largest_margins() -> None:
    margin = np.abs(FIT).mean(0) / FIT.std(0)
    chosen = np.argsort(-margin)[: 8 * 48]
    np.testing.assert_array_equal(use.top_bits(FIT, H, 48, 0), plain_hamming(H[:, chosen] > 0))
    np.testing.assert_array_equal(use.random_bits(FIT, H, 96, 3), plain_hamming(H > 0))


def test_two_bits_a_neuron_are_means_of_four_cells() -> None:
    fit, h = FIT[:, : 4 * 48], H[:, : 4 * 48]
    decoded = np.empty_like(h)
    for i in range(fit.shape[1]):
        median = {side: np.median(np.abs(fit[:, i][(fit[:, i] > 0) == side])) for side in (False, True)}
        cell = [(v > 0, abs(v) > median[bool(v > 0)]) for v in fit[:, i]]
        means = {c: fit[[k for k, other in enumerate(cell) if other == c], i].mean() for c in set(cell)}
        decoded[:, i] = [means[bool(v > 0), bool(abs(v) > median[bool(v > 0)])] for v in h[:, i]]
    centred = decoded - fit.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(use.sign_and_magnitude(fit, h, 48, 0), 1 - unit @ unit.T, atol=1e-5)


def test_more_bytes_recall_more_and_float_recalls_all() -> None:
    uses = use.Uses(H, np.arange(150) % 5, np.arange(150) % 3)
    rows = {(row["scheme"], row["bytes"]): row for row in use.measured(uses, FIT, 20, 0)}
    assert rows[use.FLOAT, 4 * 768]["recall"][0] == 1
    for name in ("SimHash", "RaBitQ", "product quantisation"):
        assert rows[name, 96]["recall"][0] > rows[name, 48]["recall"][0] > 0.1
    for row in rows.values():
        for value, low, high in (row["recall"], row["sense"]):
            assert low <= value <= high
    near = use._cosine(H - FIT.mean(0))
    right = 0
    for i in range(150):
        others = [j for j in range(150) if j != i and j % 5 == i % 5]
        right += min(others, key=lambda j: near[i, j]) % 3 == i % 3
    assert rows[use.FLOAT, 4 * 768]["sense"][0] == pytest.approx(right / 150)


def test_a_run_writes_figures_and_a_picture(data: Path, tmp_path: Path, capsys) -> None:
    use.main(
        ["--data", str(data), "--out", str(tmp_path), "--model", "tiny-gpt2", "--layers", "1", "--resamples", "10"]
    )
    kept = json.loads((tmp_path / "result.json").read_text())
    assert (kept["model"], kept["layer"], kept["width"], kept["words"]) == ("tiny-gpt2", 1, 512, 2)
    assert {row["scheme"] for row in kept["rows"]} >= {use.FLOAT, "SimHash", "code, top bits by margin"}
    assert "| SimHash | 48 |" in capsys.readouterr().out
    assert "river" not in (tmp_path / "result.json").read_text()
    assert "plotly" in (tmp_path / "figure.html").read_text()
    with pytest.raises(SystemExit, match=r"error: .*senses: no WORD"):
        use.main(["--data", str(tmp_path), "--out", str(tmp_path)])
