"""One resumable run over pairs: whatever is done to its file, never another number."""

from __future__ import annotations

import json
import os
from itertools import pairwise

import pytest
from filelock import FileLock

from polytope_lm.errors import PolytopeError
from polytope_lm.paths.resume import read, resumable

HEAD = {"pairs": 4, "settings": {"layer": 1, "pairs_sha256": "ab"}}
ENTRIES = [{"pair": 0, "found": 0.125}, {"pair": 1, "found": 77}, {"pair": 2, "bad": "no"}, {"pair": 3, "found": 9}]


class Job:
    """Counts what is computed."""

    def __init__(self, entries=ENTRIES):
        self.entries, self.computed = entries, []

    def __call__(self, left):
        for number in left:
            yield number, lambda number=number: self.one(number)

    def one(self, number):
        self.computed.append(number)
        return {name: value for name, value in self.entries[number].items() if name != "pair"}


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "pairs.jsonl"
    assert resumable(HEAD, Job(), to=path) == ENTRIES
    return path


def test_every_flipped_bit_and_every_cut_gives_the_same_numbers(target):
    """A flip in the first line, while no pair verifies, may only be refused."""
    whole, refused, said = target.read_bytes(), 0, []
    damaged = [whole[:i] for i in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    damaged += [whole[:i] + whole[i + 1 :] for i in range(len(whole))]
    damaged += [whole + b"x", whole + whole, whole.replace(b"\n", b"\r\n"), whole + b'{"pair":9}\n']
    for data in damaged:
        target.write_bytes(data)
        try:
            head, entries = read(target)
        except PolytopeError as error:
            said.append(str(error))
        else:
            assert head == {"format": 2, **HEAD}
            assert all(entry in ENTRIES for entry in entries)
        try:
            assert resumable(HEAD, Job(), to=target) == ENTRIES
        except PolytopeError as error:
            said.append(str(error))
            refused += 1
            assert target.read_bytes() == data
        else:
            assert target.read_bytes() == whole
    assert refused <= 2  # where every line ends in another character
    assert not any("\n" in line for line in said)


def test_only_what_is_damaged_is_computed_again(target):
    lines = target.read_bytes().split(b"\n")
    target.write_bytes(b"\n".join([*lines[:2], lines[2].replace(b"77", b"78"), *lines[3:]]))
    job, told = Job(), []
    assert resumable(HEAD, job, to=target, told=told.append) == ENTRIES
    assert (job.computed, told) == ([1], [3, 4])
    assert target.read_bytes().split(b"\n") == lines


def test_a_line_of_another_run_is_not_taken(target, tmp_path):
    other = tmp_path / "other.jsonl"
    entries = [{"pair": number, "found": -1} for number in range(4)]
    resumable(HEAD | {"settings": {"layer": 2}}, Job(entries), to=other)
    mine, theirs = (path.read_bytes().split(b"\n") for path in (target, other))
    target.write_bytes(b"\n".join([*mine[:2], *theirs[2:]]))
    assert resumable(HEAD, Job(), to=target) == ENTRIES


def test_another_runs_file_is_left_alone_and_says_what_differs(target):
    before, job = target.read_bytes(), Job()
    with pytest.raises(PolytopeError, match=r"another run's pairs \(layer: 1, asked 2\)"):
        resumable({"pairs": 4, "settings": {"layer": 2, "pairs_sha256": "ab"}}, job, to=target)
    assert (target.read_bytes(), job.computed) == (before, [])


def test_a_second_run_is_one_line(target):
    with FileLock(f"{target}.lock"), pytest.raises(PolytopeError, match="written by another run") as caught:
        resumable(HEAD, Job(), to=target)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_stopped_keeps_what_it_had(tmp_path):
    path, job = tmp_path / "pairs.jsonl", Job()

    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resumable(HEAD, job, to=path, told=stop)
    again = Job()
    assert resumable(HEAD, again, to=path) == ENTRIES
    assert again.computed == [2, 3]
    assert [entry["pair"] for entry in read(path)[1]] == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [{"format": 1, "pairs": 4}, {"run": "abc"}])
def test_a_former_file_is_refused_in_one_true_line(tmp_path, first):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (first, *ENTRIES)))
    before = path.read_bytes()
    with pytest.raises(PolytopeError, match="an earlier version, without checksums") as caught:
        resumable(HEAD, Job(), to=path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["fifo", "device", "link", "dangling", "directory", "lock", "below a file"])
def test_what_is_no_file_is_one_line(tmp_path, kind):
    path, other = tmp_path / "pairs.jsonl", tmp_path / "other"
    other.write_text("mine")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind in {"link", "dangling"}:
        path.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    elif kind == "directory":
        path.mkdir()
    elif kind == "lock":
        (tmp_path / "pairs.jsonl.lock").symlink_to(other)
    else:
        path = other / "pairs.jsonl"
    with pytest.raises(PolytopeError, match=r"pairs\.jsonl") as caught:
        resumable(HEAD, Job(), to=path)
    assert "\n" not in str(caught.value)
    assert other.read_text() == "mine"
    if kind == "device":
        path = "/dev/zero"
    if kind not in {"link", "lock"}:
        with pytest.raises(PolytopeError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_threads_work_ahead_and_entries_stay_in_order(tmp_path):
    head, count = {"pairs": 40}, 40
    entries = [{"pair": number, "found": number**2} for number in range(count)]
    path = tmp_path / "pairs.jsonl"
    assert resumable(head, Job(entries), to=path, workers=4) == entries
    assert all(a["pair"] < b["pair"] for a, b in pairwise(read(path)[1]))
