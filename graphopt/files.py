"""Files that are written whole or not at all: into a temporary file of the same folder, then moved in place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphopt.errors import SaveError
from graphopt.external import printable


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_place(path: Path) -> None:
    """Raises SaveError when a file could not be put at `path`: asked before long work, so that it is not in vain."""
    with _temporary(path):
        pass


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves it in place when the block ends well, else removes it.

    Raises SaveError where the folder is missing, not writable or full.
    """
    with _temporary(path) as temporary:
        yield temporary
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """An empty file beside `path` that is gone when the block ends; trouble with the file system is a SaveError."""
    name = printable(str(path))
    if path.is_dir():
        raise SaveError(f"'{name}' is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise SaveError(f"the folder of '{name}' does not exist; make it first.")
    temporary: Path | None = None
    try:
        handle, text = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(text)
        yield temporary
    except OSError as error:
        raise SaveError(f"'{name}' cannot be written: {error.strerror or error}; nothing was written.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
