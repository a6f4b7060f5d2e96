"""Stores on the Hugging Face hub: pushed as they are, pulled byte for byte, opened from the local copy.

A store is a data set's repository with the store's own files. A push is one commit, so nothing half written is ever
there; a pull fills a directory under another name and renames it. No code that comes with a repository is run.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import cast

from filelock import FileLock
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from polytope_lm.codes.store import layout
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.packaged import cache_directory

_ADDRESS = re.compile(r"hf:/{1,2}datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_FILES = [layout.MANIFEST, layout.MANIFEST_SUM, layout.COMPLETE, f"{layout.SHARDS}/*"]
# The library's HTTP client changes with its version; its own error is derived from the client's.
_HTTP = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
_UNREACHED: tuple[type[Exception], ...] = (OSError, ValueError, cast("type[Exception]", _HTTP))


def push(path: Path, repo: str, *, private: bool, token: str | None, message: str) -> str:
    """Push a sound store; see `CodeStore.push`."""
    if not isinstance(repo, str) or not _REPO.fullmatch(repo):
        raise PolytopeError(f"repository {brief(repo)}: give OWNER/NAME, such as 'me/my-codes'")
    api = _api(token)
    try:
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, repo_type="dataset", folder_path=path, allow_patterns=_FILES, delete_patterns=_FILES,
            ignore_patterns=[f"{layout.LOCK}*"], commit_message=message,
        )  # fmt: skip
    except _UNREACHED as error:
        raise PolytopeError(f"{repo}: nothing was pushed: {_reason(error)}; check network, name and token") from None
    return f"hf://datasets/{repo}@{done.oid}"


def pulled(address: str | os.PathLike[str]) -> Path:
    """Return the local directory of a store on the hub, its files fetched where they are not there yet.

    Args:
        address: `hf://datasets/OWNER/NAME`, or with `@REVISION` (a branch, tag or commit).

    Raises:
        PolytopeError: another address, no such repository, no store in it, a hub that can't be reached.

    """
    found = _ADDRESS.fullmatch(os.fspath(address))
    if found is None:
        raise PolytopeError(f"{brief(os.fspath(address))}: write hf://datasets/OWNER/NAME or …/NAME@REVISION")
    repo, revision = found["repo"], found["revision"]
    try:
        snapshot = Path(_api().snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=_FILES))
    except _UNREACHED as error:
        where = f"{repo}@{revision}" if revision else repo
        raise PolytopeError(
            f"hf://datasets/{where}: not opened: {_reason(error)}; check network, name and token, or open a local copy"
        ) from None
    place = cache_directory() / "stores" / repo.replace("/", "--") / snapshot.name
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{place.name}.lock")):
            if not place.is_dir():
                _copied(snapshot, place)
    return place


def _api(token: str | None = None) -> HfApi:
    """Return the hub that `$HF_ENDPOINT` names now; the library reads it once, when it is imported."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


def _copied(snapshot: Path, place: Path) -> None:
    """Fill the directory with what the hub's cache links to: the same bytes on disk where it can be."""
    if not (snapshot / layout.MANIFEST).is_file():
        raise PolytopeError(f"{snapshot.parent.parent.name}: no store there (no {layout.MANIFEST})")
    temporary = place.with_name(f".{place.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for file in sorted(path for path in snapshot.rglob("*") if path.is_file()):
        target = temporary / file.relative_to(snapshot)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), target)
        except OSError:
            shutil.copyfile(file, target)
    temporary.rename(place)


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    text = str(cause).strip().split("\n")[0]
    return f"{text[:200] or type(cause).__name__}"
