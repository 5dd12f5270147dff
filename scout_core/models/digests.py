"""SHA-256 of files, remembered by path, size and time of change: a start hashes nothing."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Final

from scout_core.models.cache_folder import cache_folder

BOOK: Final = "digests.json"
MAX_ENTRIES: Final = 1_024
READ_BYTES: Final = 1 << 22


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's content. An unchanged file is hashed once per user."""
    real = path.resolve()
    status = real.stat()
    key = f"{real}|{status.st_size}|{status.st_mtime_ns}"
    book_file = cache_folder() / BOOK
    book = _read(book_file)
    if key not in book:
        book[key] = _hash(real)
        _write(book_file, book)
    return book[key]


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read(book_file: Path) -> dict[str, str]:
    try:
        content = json.loads(book_file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}  # the book only saves time: without it, files are hashed again
    if not isinstance(content, dict):
        return {}
    return {str(key): str(value) for key, value in content.items()}


def _write(book_file: Path, book: dict[str, str]) -> None:
    kept = dict(list(book.items())[-MAX_ENTRIES:])
    book_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=book_file.parent, delete=False) as draft:
        json.dump(kept, draft)
    Path(draft.name).replace(book_file)
