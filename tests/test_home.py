"""`~` stands for the user's home in every path that is given."""

from __future__ import annotations

import polytope_lm as plm
from polytope_lm import pairs, report

A, B = "He sat on the bank", "She owes the bank"


def test_every_path_that_users_give_may_begin_at_home(monkeypatch, tmp_path, model):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    store = plm.capture(model, [A, B], layers=[0], to="~/codes")
    assert len(plm.open_store("~/codes").tokens) == len(store.tokens)
    crossed = plm.path(model, A, B, layer=0).crossings()
    crossed.save("~/results/crossings.json")
    assert plm.load_result("~/results/crossings.json").prompts == crossed.prompts
    report.write("~/page.html", crossings=[crossed])
    report.from_directories(["~/results"], "~/other.html")
    pairs.write([pairs.Pair(A, B, "bank", same=False)], "~/pairs.jsonl")
    assert pairs.read("~/pairs.jsonl")[0].prompts == (A, B)
    plm.paths.crossings_of_pairs(model, [(A, B)], layer=0, to="~/lines.jsonl")
    (home / "corpus.txt").write_text("a text")
    assert [d.text for d in plm.documents("~/corpus.txt")] == ["a text"]
    assert not list(here.iterdir())
    made = {"codes", "results", "page.html", "other.html", "pairs.jsonl", "lines.jsonl"}
    assert made <= {path.name for path in home.iterdir()}
