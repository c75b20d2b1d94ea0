"""Write files such that a reader sees the old file or the new one, never half of it; temporary folders.

The new contents go to a temporary file beside the target, reach the disk, and only then take the target's
name. The temporary file's name holds the host and the process that write it, so that what a killed process
left behind can be told from what another one is writing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LONGEST = 150
"""Bytes of the target's name that a temporary name repeats; file systems take 255 in all."""

NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
"""How file systems say that they cannot wait for a disk."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[\w-]*)-(?P<pid>\d+)-[0-9a-f]{16}\.part", re.DOTALL)


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a new, empty file beside `path`, which takes that name once all went well and is on disk.

    Missing folders are created. A symbolic link is followed, so that the file it points to is replaced.
    Something that is not a regular file, such as /dev/stdout, cannot be replaced and is yielded itself. What
    killed writers of the same target left behind is removed.

    Args:
        path: the target.

    Yields:
        The path to write to; where it is a temporary one, it is removed if the block raises.

    Raises:
        IsADirectoryError: the target is a folder.
        OSError: it cannot be written; names the target, not the temporary file.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(target))
    if target.exists() and not target.is_file():
        yield target
        return
    place = Path(os.path.realpath(target))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place.parent, place.name)
        temporary = place.with_name(temporary_name(place.name))
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise _about(target, error) from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            _sync(file.fileno())
        os.replace(temporary, place)
    except OSError as error:
        _remove(temporary)
        if error.filename in (None, str(temporary)):
            raise _about(target, error) from error
        raise
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(place.parent)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written; names it.
    """
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OSError: it cannot be written; names it.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        ValueError: a number that is not finite, for which JSON has no word (`words.plain` makes it null).
        OSError: it cannot be written; names it.
    """
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be written as JSON: {error}") from None
    write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ValueError: it is not there, not JSON, or nested too deeply; names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None


def expanded(path: str | Path) -> Path:
    """Return a path with its ~ replaced by a home; as it is for a user that has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def temporary_name(name: str) -> str:
    """Return a name that nobody can predict for a temporary file or folder of this process.

    Args:
        name: of the file it will become.
    """
    return f".{_short(name)}.{_host()}-{os.getpid()}-{secrets.token_hex(8)}.part"


def new_folder(kind: str, place: str | Path | None = None) -> Path:
    """Create an empty folder of this process, and remove those that killed processes of this machine left.

    Whoever asked for it removes it with `remove_folder`; `temporary_folder` does by itself.

    Args:
        kind: of work, for the name of the folder.
        place: where it shall lie; the system's place for temporary files if not given.
    """
    place, name = Path(place or tempfile.gettempdir()), f"sfumato-{kind}"
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place, name)
    folder = place / temporary_name(name)
    folder.mkdir(mode=0o700)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder of this process; a fork leaves those of its parent alone."""
    if f"-{os.getpid()}-" in folder.name:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Yield an empty folder of this process, which is removed when the block ends.

    Args:
        kind: of work, for the name of the folder.
    """
    folder = new_folder(kind)
    try:
        yield folder
    finally:
        remove_folder(folder)


def open_to_lock(path: str | Path) -> IO[bytes]:
    """Open a file that is only there to be locked, creating it if needed; its contents do not matter.

    Raises:
        OSError: it cannot be opened, or is a symbolic link, which might lead to a file of someone else.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b")


def remove_leftovers(folder: str | Path, name: str | None = None) -> list[Path]:
    """Remove temporary files and folders whose process has died on this host.

    Those of living processes and of other hosts, which may share the folder, are kept.

    Args:
        folder: where to look; nothing happens where it does not exist.
        name: only those of this target.

    Returns:
        What was removed.
    """
    removed: list[Path] = []
    try:
        entries = os.listdir(folder)
    except OSError:
        return removed
    for entry in entries:
        match = _TEMPORARY.fullmatch(entry)
        if match is None or match["host"] != _host() or _is_alive(int(match["pid"])):
            continue
        if name is None or match["name"] == _short(name):
            removed.append(Path(folder) / entry)
            _remove(removed[-1])
    return removed


def _short(name: str) -> str:
    return os.fsencode(name)[:LONGEST].decode(errors="ignore")


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname(), flags=re.ASCII)[:60]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a temporary file or folder; one that another process has removed meanwhile is not an error."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _sync(handle: int) -> None:
    """Wait until a file is on disk, unless its file system cannot."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Put a rename on disk; some file systems cannot, and there the rename itself is all that can be done."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _about(target: Path, error: OSError) -> OSError:
    """Return the error as one about the target."""
    return OSError(error.errno or errno.EIO, f"cannot be written: {error.strerror or error}", str(target))
