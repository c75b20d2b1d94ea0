"""Downloads that end: bounded in size and time, with a way on without a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and the total, 0 where the server does not say."""

TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""

LARGEST, LONGEST = 2 << 30, 3600.0
"""Bytes and seconds after which a download is given up, whatever the server sends."""


class DownloadError(ValueError):
    """A download that did not come to its end."""


class _Meter:
    """What pooch takes for a progress bar: tells a callable, and ends what is too large or takes too long."""

    def __init__(self, report: Progress | None, file: Path) -> None:
        self.total = 0
        self._report = report
        self._file = file
        self._start = time.monotonic()

    def update(self, _: int) -> None:
        # pooch counts whole chunks, and the last is shorter: the file knows better.
        received, seconds = self._file.stat().st_size, time.monotonic() - self._start
        if received > LARGEST or seconds > LONGEST:
            raise OSError(f"given up after {received} bytes in {seconds:.0f} s, more than any set takes")
        if self._report is not None:
            self._report(received, self.total)

    def reset(self) -> None:
        """Nothing to start over: the size of the file is the count."""

    def close(self) -> None:
        """Nothing to close."""


def download(name: str, url: str, target: Path, progress: Progress | None) -> None:
    """Fetch the archive of a data set.

    Args:
        name: of the set, for messages.
        url: of the archive.
        target: the file to write.
        progress: told how much has been received.

    Raises:
        DownloadError: no connection, an answer that is not the archive, or a download without end.
    """
    import pooch

    meter = _Meter(progress, target)
    fetch = pooch.HTTPDownloader(progressbar=meter, chunk_size=2**18, timeout=TIMEOUT)
    try:
        fetch(url, str(target), None)
    except OSError as error:  # what requests raises, and a full disk
        raise DownloadError(
            f"{name}: cannot be downloaded from {url}: {error}. Without a network, bring a copy "
            f"(the archive or the folder) and run `sfumato data import {name} PATH`"
        ) from None
