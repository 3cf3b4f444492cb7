"""A console that cannot be written to, such as a file on a full disk, is one sentence and no traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from hailproof.errors import RunError


class _Guarded:
    """A stream whose failures are said in one sentence; a closed pipe, as of ``head``, stays what it is: no error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._said():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._said():
            self._stream.flush()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            # What is left in the buffer fails again at exit, if nothing takes it.
            with suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            raise RunError(
                f"The output cannot be written ({error.strerror}); send it elsewhere, or make room for it."
            ) from error


@contextmanager
def guarded() -> Iterator[None]:
    """Raises what standard output fails with, while this lasts, as an error of ours.

    Raises:
        RunError: If standard output cannot be written.
    """
    stream = sys.stdout
    if stream is None:  # closed by whoever started the program
        yield
        return
    sys.stdout = _Guarded(stream)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = stream
