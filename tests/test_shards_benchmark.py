"""What a capture and a reader do for many shards, without their files: the benchmark's own figures, at a small size."""

from __future__ import annotations

from benchmarks.shards import record_of, simulate
from polytope_lm.codes.store import layout


def test_plan_estimate_manifest_and_completion_are_simulated(tmp_path) -> None:
    figures = {each.name: each for each in simulate(tmp_path / "store", 50)}
    assert {name.partition(": ")[0] for name in figures} == {"50 shards"}
    manifest = layout.read_manifest(tmp_path / "store")
    sizes = {
        "50 shards: manifest": layout.MANIFEST,
        "50 shards: complete.json": layout.COMPLETE,
        "50 shards: one shard's record": f"shards/00000/{layout.SHARD}",
    }
    assert {name: figures[name].value for name in sizes} == {
        name: (tmp_path / "store" / file).stat().st_size for name, file in sizes.items()
    }
    directory = layout.shard_path(tmp_path / "store", 0)
    assert layout.read_record(directory, manifest).to_bytes() == record_of(0, layout.digest(manifest)).to_bytes()
    assert layout.completed_shards(tmp_path / "store") == 50
