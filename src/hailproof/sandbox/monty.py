"""The default sandbox: Monty, an interpreter for a subset of Python that has no way out (``pydantic-monty``).

A program runs in a worker process that knows no file, socket or process to begin with, so there is nothing to take
away; time, memory and recursion are counted inside, and a worker that crashes is replaced. One program takes about
half a millisecond. It is not CPython: classes with inheritance, most of the standard library, and sympy are missing.

What it does not contain: a flaw in the interpreter itself gives the rights of its worker process, which are those of
the trainer's user. Stack a sandbox of the operating system around the trainer where that matters. One product of huge
integers is not interrupted inside; its worker is killed a second later. A worker that runs out of memory may write a
line to the trainer's error stream.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import final

import pydantic_monty as monty

from hailproof.sandbox.base import Library, Limits, Outcome, Status

MAX_CALLS = 200
"""Calls of library functions per program; each one leaves the sandbox and comes back."""

GRACE = 1.0
"""Seconds after which a worker that does not stop by itself is killed."""

_STATUS: dict[str, Status] = {"TimeoutError": "timeout", "MemoryError": "memory"}


@final
class MontySandbox:
    """Runs programs in Monty workers.

    Args:
        limits: What each program may use.
        libraries: Modules that programs may import, by name. Their functions run in *this* process, so that each must
            be safe for any number it is given; arguments that are not numbers never reach them.
    """

    honest_seconds = 0.005

    def __init__(self, limits: Limits | None = None, libraries: Mapping[str, Library] | None = None) -> None:
        self.limits = limits or Limits()
        self._modules = {
            name: monty.ExternalModule({key: _numbers_only(function) for key, function in library.functions.items()})
            for name, library in (libraries or {}).items()
        }
        self._pool: monty.Monty | None = None

    def run(self, programs: Sequence[str]) -> list[Outcome]:
        """Runs each program in a session of its own."""
        pool = self._started()
        return [self._run(pool, program) for program in programs]

    def _started(self) -> monty.Monty:
        if self._pool is None:
            pool = monty.Monty(max_processes=1, request_timeout=self.limits.seconds + GRACE)
            stack = ExitStack()
            self._pool = stack.enter_context(pool)
            weakref.finalize(self, stack.close)
        return self._pool

    def _run(self, pool: monty.Monty, program: str) -> Outcome:
        if len(program) > self.limits.source:
            return Outcome("error", "", f"the program has more than {self.limits.source} characters")
        printed = monty.CollectStreams(max_bytes=self.limits.output)
        limits = monty.ResourceLimits(
            max_feed_duration_secs=self.limits.seconds,
            max_memory=self.limits.memory,
            max_recursion_depth=200,
            max_suspensions=MAX_CALLS,
            max_total_sleep_secs=0.0,
        )
        try:
            with pool.checkout(limits=limits, external_modules=self._modules) as session:
                session.feed_run(program, print_callback=printed)
        except monty.MontyCrashedError as error:
            return Outcome("timeout" if error.timed_out else "crash", _out(printed), str(error)[:200])
        except monty.MontyError as error:
            kind = type(error.exception()).__name__
            # the collector that is full says so with its own limit, the interpreter with that of its memory
            full = kind == "MemoryError" and f"> {self.limits.output} bytes" in str(error)
            return Outcome("output" if full else _STATUS.get(kind, "error"), _out(printed), str(error)[:200])
        except (RuntimeError, TypeError, ValueError, OverflowError, UnicodeError) as error:  # the source itself is odd
            return Outcome("error", _out(printed), f"{type(error).__name__}: {error}"[:200])
        return Outcome("ok", _out(printed))


def _out(printed: monty.CollectStreams) -> str:
    """What went to the standard output; errors that a program prints are not its answer."""
    return "".join(text for stream, text in printed.output if stream == "stdout")


def _numbers_only(function: Callable[..., object]) -> Callable[..., object]:
    """Lets a host function see two plain numbers of sane size and nothing else."""

    def guarded(*operands: object) -> object:
        if not all(type(operand) in (int, float) and abs(operand) < 1e15 for operand in operands):  # type: ignore[operator]
            raise TypeError("operands must be numbers below 1e15")
        return function(*operands)

    return guarded
