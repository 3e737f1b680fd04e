"""Small configuration trees on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.config_trees import FILMS

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """`write(edge=TEXT, films=TEXT)`: edge.yaml and services/films.yaml below a new current
    directory; films is there unless it is given as None."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "services").mkdir()

    def write(films: str | None = FILMS, **nodes: str) -> Path:
        if films is not None:
            (tmp_path / "services" / "films.yaml").write_text(films)
        for name, text in nodes.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return Path(f"{next(iter(nodes), 'none')}.yaml")

    return write
