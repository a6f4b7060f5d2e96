"""Tables of kept comparisons: one row a model and label, numbers as they were saved."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import polytope_lm as plm
from analyses import calibration, cluster_tables
from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI


def test_kept_results_become_rows(tmp_path, capsys) -> None:
    codes = plm.worlds.direction_world(tokens=400, documents=20)
    found = clusters(codes, label="label", k=8, resamples=8)
    found.save(tmp_path / "a" / "label")
    found.save(tmp_path / "a" / "label" / "layers" / "0")
    lines = [
        {"key": "m | 1 | small | upos | x", "trials": 10, "supported": 0, "cells": {"AMI: raw": {"excluded": 1}}},
        {"key": "m | 1 | small | halves | 0", "agree": {"upos, AMI: raw": True, "upos, AMI: SimHash": False}},
    ]
    (tmp_path / "cal").mkdir()
    (tmp_path / "cal" / "result.json").write_text(json.dumps(calibration.summary(lines, "")))
    cluster_tables.main([str(tmp_path)])
    told = capsys.readouterr().out
    layer = found.layers[0]
    value = layer.difference("code", "cosine of h, raw", AMI).estimate.value
    assert cluster_tables.span([value]) in told
    assert cluster_tables.span([-0.25, 0.125]) == "\u2212.250 to +.125"
    assert told.count(f"| {layer.verdict.outcome} (0) |") >= 1
    outcomes = next(line for line in told.splitlines() if "| code against NMF directions |" in line)
    row = told.splitlines()[told.splitlines().index(outcomes) + 2]
    told_of = dict(zip(outcomes.split(" | "), row.split(" | "), strict=False))
    nmf = next(each for each in layer.comparators if each.references == ("NMF directions",))
    assert told_of["code against NMF directions"] == f"{nmf.verdict.outcome} (0)"
    assert "Layer by layer" not in told
    cluster_tables.main([str(tmp_path), "--label", "label"])
    told = capsys.readouterr().out
    assert told.count("| label | code |") == len([each for each in layer.comparators if each.claim == "code"])
    assert "| code | NMF directions |" in told
    assert all(cluster_tables.interval(each.verdict.deciding) in told for each in layer.comparators)
    lead = cluster_tables.interval(layer.difference("code", "cosine of h, raw", AGREEMENT).estimate)
    power = cluster_tables.lead(layer.verdict.power)
    assert f"| 0 | {layer.verdict.outcome} | {power} | {lead}" in told
    for each in layer.comparators:
        assert (
            f" | {cluster_tables.powers({0: each.verdict})} | {cluster_tables.interval(each.verdict.deciding)} " in told
        )
    assert "| cal | 10.0% | 10.0% (m | 1 | small | upos | x | AMI: raw) | 0.0% | 50.0% | 1 |" in told


def test_the_least_and_the_greatest_lead_are_told_with_their_layers() -> None:
    codes = plm.worlds.direction_world(tokens=400, documents=20)
    verdict = clusters(codes, label="label", k=8, resamples=4, comparators=False).verdicts[0]
    there = {layer: replace(verdict, power=power) for layer, power in ((0, None), (3, 0.05), (5, 0.034), (9, 0.108))}
    assert cluster_tables.powers(there) == ".034 (5) to .108 (9)"
    assert cluster_tables.powers({3: there[3]}) == ".050 (3)"
    assert cluster_tables.powers({0: there[0]}) == ""


def test_layers_that_are_there_are_shown_while_others_are_to_come(tmp_path, capsys) -> None:
    codes = plm.worlds.direction_world(tokens=400, documents=20)
    found = clusters(codes, label="label", k=8, resamples=8, comparators=False)
    part = tmp_path / "m" / "label" / "layers" / "00.json"
    part.parent.mkdir(parents=True)
    part.write_text(json.dumps(found.to_dict()))
    cluster_tables.main([str(tmp_path)])
    assert "| planted: direction world (unfinished) | label | 0 |" in capsys.readouterr().out


def test_a_directory_without_results_is_refused(tmp_path) -> None:
    with pytest.raises(SystemExit, match=re.escape(str(tmp_path))):
        cluster_tables.main([str(tmp_path)])


def test_a_calibration_goes_on_where_it_stopped(tmp_path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text('{"key": "m | 1 | small | upos | between documents", "cells": {}}\n{"key": "m | 1')
    assert [line["key"] for line in calibration.read_lines(path)] == ["m | 1 | small | upos | between documents"]
