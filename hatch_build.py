"""What the build adds to the package's metadata: the README, with links that work away from the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!\w+:|#|//)([^)\s]+)\)")


def description(readme: str, source: str) -> str:
    """The README with its relative links made absolute.

    Args:
        readme: The README's text.
        source: The repository's address. Files are shown under `/blob/main/`, pictures served under `/raw/main/`.
    """

    def absolute(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        return f"{picture}{words}({source}/{'raw' if picture else 'blob'}/main/{target})"

    return LINK.sub(absolute, readme)


class ReadmeHook(MetadataHookInterface):
    """Fills in `project.readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the metadata of pyproject.toml."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = description(readme, metadata["urls"]["Source"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
