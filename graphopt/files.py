"""Files that are written whole or not at all: into a temporary file of the same folder, then moved in place.

A process that is killed meanwhile leaves the temporary file, `.NAME.*.tmp`. Whoever writes holds a lock on it, which
ends with the process, so that the next who writes to the same name tells what was left behind, and removes it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: what was left behind stays
    fcntl = None  # type: ignore[assignment]

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
    handle: int | None = None
    try:
        _remove_left(path)
        handle, temporary = _locked_file(path)
        yield temporary
    except OSError as error:
        raise SaveError(f"'{name}' cannot be written: {error.strerror or error}; nothing was written.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _prefix(path: Path) -> str:
    return f".{path.name[:40]}."


def _locked_file(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, locked: whoever took it for left behind before it was has removed it."""
    while True:
        handle, text = tempfile.mkstemp(prefix=_prefix(path), suffix=".tmp", dir=path.parent)
        if _lock(handle) and os.fstat(handle).st_nlink:
            return handle, Path(text)
        os.close(handle)


def _remove_left(path: Path) -> None:
    """Removes the temporary files of processes that were killed while they wrote `path`."""
    for text in glob.glob(f"{glob.escape(str(path.parent / _prefix(path)))}*.tmp") if fcntl is not None else ():
        with contextlib.suppress(OSError):
            handle = os.open(text, os.O_RDWR)
            try:
                if _lock(handle):
                    os.unlink(text)
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    """Locks a file, where the system can; False when another process holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
