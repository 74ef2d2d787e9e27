"""Who writes here? One process at a time owns a folder; the system lets go of it when the process ends, however."""

from __future__ import annotations

import os
from pathlib import Path

LOCK_FILE = ".lock"


class FolderLock:
    """Ownership of ``folder``, which is made where it is missing.

    Raises
    ------
    BlockingIOError
        If another process owns it.
    OSError
        If no folder can be made there.

    Notes
    -----
    Without ``fcntl`` (Windows), or on a network disk that knows no locks, writers are not kept apart.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = self._owned()
        while not self._is_current():  # the owner before us removed the folder between our opening and locking
            os.close(self._descriptor)
            self._descriptor = self._owned()

    def release(self) -> None:
        """Give the folder back, and remove it if nothing else is in it."""
        try:
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        except OSError:  # gone already, or in the hands of the next
            pass
        os.close(self._descriptor)

    def _owned(self) -> int:
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
                break
            except FileNotFoundError:  # removed since; a dangling link would be no folder above
                continue
        try:
            _lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return descriptor

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.folder / LOCK_FILE))
        except FileNotFoundError:
            return False


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def _lock(descriptor: int) -> None:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return
