from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, homogeneity_score
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters, groups
from polytope_lm.predictions.groups import result as names
from polytope_lm.predictions.groups.result import GroupScores
from polytope_lm.representations.directions import COSINES
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.agreement import resampled_conditional
from polytope_lm.statistics.estimate import Resampled, half_samples

FAST = {"draws": 20, "resamples": 40, "tokens": 120, "items": 15, "repeats": 2}
BY_ENCODER = (names.COHERENCE, names.INTRUDER, names.INTRUDER_TOKEN)


def _stub(texts) -> np.ndarray:
    return np.array([[len(text), text.count("e") + 1, sum(map(ord, text)) % 7] for text in texts], float)


def test_planted_groups_beat_chance_in_the_code_and_not_in_the_cosine(world) -> None:
    codes = world("code")
    result = clusters(codes, 4, k=12, resamples=20)
    found = groups(codes, result, encoder=_stub, **FAST)
    code, cosine = found.representation("code"), found.representation(COSINES[0])
    for name, better in ((names.ENTROPY, -1), (names.PURITY, 1)):
        ahead = code.score(name)
        assert ahead.random is not None
        assert better * (ahead.random.z or 0) > 5
        assert abs(cosine.score(name).random.z or 0) < 4
    assert (code.score(names.CONDITIONAL).value, cosine.score(names.CONDITIONAL).value) == (
        pytest.approx(0.45, abs=0.15),
        pytest.approx(0, abs=0.08),
    )
    leads = {lead.score: lead for lead in found.leads if lead.representation == "code"}
    assert leads[names.AMI].estimate.low > 0
    # Lower entropy is better, so its lead is positive too.
    assert leads[names.ENTROPY].estimate.low > 0
    assert {lead.representation for lead in found.leads} == {"code"}


def test_every_number_is_that_of_the_same_clusters(world) -> None:
    codes = world("code")
    result = clusters(codes, 4, k=12, resamples=20)
    found = groups(codes, result, encoder=_stub, **FAST)
    table = result.tokens
    labels, ids = table["upos"], table["L04.pre/cluster/code"].to_numpy()
    code = found.representation("code")
    assert code.score(names.AMI).value == pytest.approx(adjusted_mutual_info_score(labels, ids))
    homogeneity = homogeneity_score(labels, ids)
    assert f"homogeneity {homogeneity:.3f}" in code.score(names.V_MEASURE).note
    label, token = (np.unique(x, return_inverse=True)[1] for x in (labels, table["word"]))
    own = resampled_conditional(ids, label, token, np.ones((1, len(ids)), dtype=bool))[0]
    assert code.score(names.CONDITIONAL).value == pytest.approx(own)
    documents = np.unique(codes.tokens["document"].to_numpy()[table["row"]], return_inverse=True)[1]
    halves = half_samples(45, FAST["resamples"], seed=derived(0, Purpose.HALVES))[:, documents]
    by_half = [adjusted_mutual_info_score(labels[kept], ids[kept]) for kept in halves]
    expected = Resampled(code.score(names.AMI).value, np.array(by_half)).by_halves(second_order=True)
    assert code.score(names.AMI).interval.low == pytest.approx(expected.low)
    cosines = [
        [adjusted_mutual_info_score(labels[k], table[f"L04.pre/cluster/{name}"][k]) for k in halves] for name in COSINES
    ]
    lead = next(x for x in found.leads if x.score == names.AMI)
    assert [x.best for x in found.leads if x.score == names.AMI and x.representation == "code"] == list(COSINES)
    ahead = np.array(by_half) - np.array(cosines[0])
    assert lead.estimate.sd == pytest.approx(Resampled(0.0, ahead).by_halves(second_order=True).sd)


def test_what_can_run_runs_and_the_rest_has_its_reason(world) -> None:
    codes = world("code")
    result = clusters(codes, 4, k=12, resamples=20)
    found = groups(codes, result, encoder=lambda texts: np.zeros((len(texts), 2)), **FAST)
    assert "opened without their model" in found.left_out[names.NEXT_TOKEN]
    assert all("zero or non-finite vector" in found.left_out[name] for name in BY_ENCODER)
    assert found.settings.encoder == ""
    code = found.representation("code")
    assert {s.name for s in code.scores} >= {names.AMI, names.STABILITY, names.POSITION, names.NEAREST}
    with pytest.raises(PolytopeError, match="no score 'next-token divergence' of 'code'"):
        code.score(names.NEXT_TOKEN)
    text = found._repr_html_()
    assert "next-token divergence left out: these codes were opened without" in text


def test_scores_save_load_and_hold_no_text(world, tmp_path) -> None:
    codes = world("direction")
    result = clusters(codes, 4, k=12, resamples=20)
    found, again = (groups(codes, result, encoder=_stub, **FAST) for _ in range(2))
    path = found.save(tmp_path)
    assert GroupScores.load(tmp_path) == found
    assert path.read_bytes() == again.save(tmp_path / "again").read_bytes()
    text = path.read_text()
    assert all(word not in text for word in ("w17", "é ", "<b>0"))
    frame = found.to_frame()
    assert len(frame) == sum(len(each.scores) for each in found.representations)
    assert {"value", "low", "high", "chance", "same token p", "lead over cosine"} <= set(frame.columns)
    path.write_text(json.dumps({"format": 1}))
    with pytest.raises(PolytopeError, match=r"groups\.json"):
        GroupScores.load(tmp_path)
    with pytest.raises(PolytopeError, match=r"groups\.json"):
        GroupScores.load(tmp_path / "nowhere")


def test_any_array_of_ids_is_scored_and_noise_is_never_silent(world) -> None:
    codes = world("code")
    ids = np.unique(codes.tokens["upos"], return_inverse=True)[1]
    ids[::10] = -1
    found = groups(codes, {"mine": ids}, label="upos", encoder=_stub, **FAST)
    mine = found.representation("mine")
    assert mine.score(names.AMI).value == pytest.approx(1)
    assert mine.score(names.ENTROPY).value == pytest.approx(0)
    assert mine.noise == (ids[np.flatnonzero(codes.tokens["position"] > 0)] == -1).sum()
    assert mine.score(names.AMI).left_out == mine.noise
    assert mine.score(names.AMI).n + mine.noise == found.tokens
    assert "no representation 'mine'" in mine.left_out[names.STABILITY]
    assert found.leads == ()


def test_with_the_model_at_hand_next_tokens_are_scored(model) -> None:
    from polytope_lm.documents import Document

    texts = [f"{s} {i}." for i in range(3) for s in SENTENCES]
    documents = [Document(str(i), text, labels={"half": str(i % 2)}) for i, text in enumerate(texts)]
    codes = plm.encode(model, documents, layers=[0, 1], keep=("u", "h"))
    ids = (codes.tokens["document"] % 4).to_numpy()
    found = groups(codes, {"sentence": ids}, 1, label="half", encoder=_stub, **FAST)
    score = found.representation("sentence").score(names.NEXT_TOKEN)
    assert score.better == "lower"
    assert 0 < score.value < score.random.mean
    assert score.interval is not None
    assert found.left_out == {}
    few = codes[:3]
    found = groups(few, {"sentence": ids[: len(few)]}, 1, label="half", encoder=_stub, **FAST)
    assert "3 documents are too few to resample" in found.left_out["intervals"]
    assert all(s.interval is None for s in found.representations[0].scores)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"representations": ("codes",)}, "no clusters by 'codes' in layer 4"),
        ({"layer": 7}, "layer 7 is not in this result"),
        ({"label": "pos"}, "no label 'pos'"),
        ({"identity": "stem"}, "no label 'stem'"),
        ({"representations": ()}, "no grouping to score"),
        ({"tokens": 1}, "tokens = 1 makes no pair"),
    ],
)
def test_mistakes_are_one_line(world, options, said) -> None:
    codes = world("direction", n=400, documents=20)
    result = clusters(codes, 4, k=6, resamples=10)
    asked = []
    with pytest.raises(PolytopeError, match=said) as error:
        groups(codes, result, encoder=lambda texts: asked.append(texts) or _stub(texts), **{**FAST, **options})
    assert "\n" not in str(error.value)
    assert not asked  # nothing slow is done before


def test_another_result_and_ids_that_do_not_fit_are_refused(world) -> None:
    codes = world("direction", n=400, documents=20)
    result = clusters(codes, 4, k=6, resamples=10)
    other = world("direction", n=300, documents=20, seed=5)
    with pytest.raises(PolytopeError, match="are not in these codes"):
        groups(other, result, encoder=_stub, **FAST)
    with pytest.raises(PolytopeError, match="grouping 'mine' has 3 ids; give one id for each of 400 tokens"):
        groups(codes, {"mine": np.zeros(3, int)}, label="upos", encoder=_stub, **FAST)
    bare = codes.tokens.assign(topic=["a"] * 100 + [None] * 300)
    with pytest.raises(PolytopeError, match=r"\d+ of \d+ tokens have no label 'topic'"):
        groups(replace(codes, table=bare), result, label="topic", encoder=_stub, **FAST)
    with pytest.raises(PolytopeError, match="label=None: name the label"):
        groups(codes, {"mine": np.zeros(400, int)}, encoder=_stub, **FAST)
