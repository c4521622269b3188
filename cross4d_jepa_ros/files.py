# SPDX-License-Identifier: Apache-2.0
"""Files that are either complete or not there, and folders that one process at a time writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# A file that is being written has changed more lately than that.
LEFT_BEHIND_S = 3600.0


class InUse(ValueError):
    """Another process writes what this one is to write; the sentence says which."""


def write_atomically(path: Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    The content is written to a file beside it, `.NAME.LETTERS.tmp`, which takes the target's
    place once it is on the disk. A writer that is killed leaves that behind: readers pass over it,
    and whoever writes the same target an hour later or more removes it.

    Args:
        path: Target; its folder is made.
        content: Text (UTF-8) or bytes.
        replace: Whether an old file is replaced.

    Raises:
        FileExistsError: There is a file already, and it is not to be replaced.
        OSError: The disk refuses; names the file. The old one stays.

    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.tmp')
        temporary = Path(name)
        with os.fdopen(handle, 'wb') as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
            temporary.unlink()
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # Writing to an open file names none, and the temporary one tells nobody anything.
            error.filename, error.filename2 = str(path), None
        raise
    _keep_name(path.parent)


@contextlib.contextmanager
def one_writer(path: Path, what: str) -> Iterator[None]:
    """Keep other processes from writing something, for as long as this lasts.

    The system lets go of the lock when the process ends, however it ends; the file stays.

    Args:
        path: Lock file, such as `.lock` in a folder; it tells who holds it.
        what: Is written there, for the sentence.

    Raises:
        InUse: Another process writes it; names its id.
        OSError: The lock file cannot be written, or its file system knows no locks; names it.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+') as stream:
        try:
            # Of the process, not of the open file: those that it forks do not hold it on.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                error.filename = str(path)
                raise
            stream.seek(0)
            holder = stream.read().strip() or 'unknown'
            msg = (
                f'{what} is being written by another process (id {holder}): wait for it or end '
                'it, or write somewhere else'
            )
            raise InUse(msg) from error
        stream.truncate(0)
        stream.write(f'{os.getpid()}\n')
        stream.flush()
        yield


def _remove_left_behind(path: Path) -> None:
    """Remove what writers of a file have left that were killed."""
    prefix, long_ago = f'.{path.name}.', time.time() - LEFT_BEHIND_S
    for other in path.parent.iterdir():
        # Another process may remove it as well.
        with contextlib.suppress(OSError):
            is_ours = other.name.startswith(prefix) and other.suffix == '.tmp'
            if is_ours and other.stat().st_mtime < long_ago:
                other.unlink()


def _keep_name(folder: Path) -> None:
    """Have the folder on the disk too, so that a power cut does not take the new name back."""
    # Not every file system can: there the file is safe and its name a matter of seconds.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
