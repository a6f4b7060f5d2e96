"""Stores pushed to a hub, on loopback, and opened from there."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from hub import serving
from small import SENTENCES, tree

import polytope_lm as plm

ADDRESS = "hf://datasets/me/my-codes"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on loopback; the library's and our own cache are new."""
    with serving() as there:
        constants = huggingface_hub.constants
        for name, value in {
            "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "hf"), "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_ENDPOINT", there.url)
        monkeypatch.setenv("HF_TOKEN", "a-token-of-the-test")
        monkeypatch.setenv("POLYTOPE_LM_CACHE", str(tmp_path / "cache"))
        yield there


def own(path) -> dict:
    return {name: content for name, content in tree(path).items() if not name.startswith(".lock")}


def test_a_pulled_store_equals_the_pushed_one(hub, store, tmp_path):
    pushed = plm.open_store(store)
    address = pushed.push("me/my-codes")
    assert address.startswith(f"{ADDRESS}@")
    for where in (ADDRESS, address, Path(ADDRESS)):  # the command line has a path
        pulled = plm.open_store(where)
        assert own(pulled.path) == own(store)
        assert pulled.path.is_relative_to(tmp_path / "cache")
        assert pulled.verify() == []
        assert (pulled.packed(1) == pushed.packed(1)).all()
    lfs = [name for name in hub.files("me/my-codes") if len(hub.files("me/my-codes")[name]) >= hub.lfs_from]
    assert lfs, "no file went by LFS: the test would not see it"


def test_a_store_opens_again_without_the_hub(hub, store, monkeypatch):
    plm.open_store(store).push("me/my-codes")
    first = plm.open_store(ADDRESS).path
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    assert plm.open_store(ADDRESS).path == first


def test_what_was_there_is_replaced_in_one_commit(hub, store, model, tmp_path):
    plm.open_store(store).push("me/my-codes")
    other = plm.capture(model, SENTENCES[:2], to=tmp_path / "other", layers=[1])
    other.push("me/my-codes")
    assert len(hub.repos["me/my-codes"]) == 3  # as made, and a commit a push
    assert own(plm.open_store(ADDRESS).path) == own(other.path)


@pytest.mark.parametrize("broken", ["/preupload", "/commit", "/objects", "/api/repos/create"])
def test_a_push_that_fails_leaves_nothing_half_written(hub, store, broken, monkeypatch):
    hub.broken = (broken,)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(plm.PolytopeError, match="me/my-codes: nothing was pushed") as error:
        plm.open_store(store).push("me/my-codes")
    assert "\n" not in str(error.value)
    assert all("manifest.json" not in files for files in hub.repos.get("me/my-codes", []))


def test_a_pull_that_fails_leaves_nothing_half_written(hub, store, tmp_path, monkeypatch):
    plm.open_store(store).push("me/my-codes")
    hub.broken = ("documents.parquet",)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(plm.PolytopeError, match="hf://datasets/me/my-codes: not opened") as error:
        plm.open_store(ADDRESS)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_a_hub_that_is_not_there_is_one_line(hub, store, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for offline in (False, True):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        huggingface_hub.close_session()
        with pytest.raises(plm.PolytopeError, match=r"not opened: .*check network") as error:
            plm.open_store("hf://datasets/me/nothing@main")
        assert "\n" not in str(error.value)
        with pytest.raises(plm.PolytopeError, match=r"me/my-codes: nothing was pushed: .*check network") as error:
            plm.open_store(store).push("me/my-codes")
        assert "\n" not in str(error.value)


def test_wrong_names_and_repositories_are_one_line(hub, store, tmp_path):
    with pytest.raises(plm.PolytopeError, match="repository 'codes': give OWNER/NAME"):
        plm.open_store(store).push("codes")
    for address in ("hf://me/my-codes", "hf://datasets/one", "hf://datasets/../../x/y"):
        with pytest.raises(plm.PolytopeError, match="write hf://datasets/OWNER/NAME"):
            plm.open_store(address)
    with pytest.raises(plm.PolytopeError, match="hf://datasets/me/nobody: not opened"):
        plm.open_store("hf://datasets/me/nobody")
    hub.repos["me/empty"] = [{"README.md": b"no store"}]
    with pytest.raises(plm.PolytopeError, match=r"no store there \(no manifest\.json\)"):
        plm.open_store("hf://datasets/me/empty")
    shutil.rmtree(store / "shards" / "00001")
    with pytest.raises(plm.PolytopeError, match=r"not pushed, as it is not sound: .*00001"):
        plm.open_store(store).push("me/my-codes")
