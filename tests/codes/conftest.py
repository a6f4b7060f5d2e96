"""A sound store, and copies of it to be damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small import SENTENCES

import polytope_lm as plm


@pytest.fixture(scope="module")
def sound(model: plm.models.model.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "store"
    plm.capture(model, SENTENCES, to=path, layers=[1], keep=["u"], shard_documents=2)
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "store"))
