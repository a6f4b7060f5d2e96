"""What the site's build adds: notebooks and the list of changes, which lie outside docs/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the executed notebooks and CHANGELOG.md."""
    root = Path(config.config_file_path).parent
    for path in (*sorted((root / "notebooks").glob("*.ipynb")), root / "CHANGELOG.md"):
        files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links, which are written as they work in the repository, to the pages of notebooks and of CHANGELOG.md."""
    return markdown.replace("](../notebooks/", "](notebooks/").replace("](docs/", "](")
