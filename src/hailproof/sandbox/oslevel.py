"""The sandbox of the operating system: each program in a fresh CPython process that ``sandlock`` confines.

For programs that need what Monty lacks: sympy, numpy, inheritance, the standard library. Landlock hides the content of
all files but Python's own installation, seccomp takes system calls away, and a supervising thread of this process
counts memory and processes. It needs no root, namespaces or container, but Linux 6.12 or newer. A program takes 40 ms
to start, and 125 ms from a trainer that holds 2 GiB, since the trainer is forked.

Chosen over bubblewrap 0.8 after both ran the same probes (as root, kernel 6.18):

* bubblewrap contains by namespaces, which is the stronger construction: other files, processes and networks do not
  exist inside. But it limits neither memory nor processes, leaves keyrings, sockets to the host of a virtual machine
  and nearly every system call open unless one compiles a seccomp program oneself, is no Python package, and cannot
  start where user namespaces are forbidden, as in most containers, where most rented accelerators are.
* sandlock 0.9 contains by lists, and its defaults have gaps that this module closes. A program could connect by MPTCP
  and by TCP Fast Open, which Landlock does not see; change mode, times and attributes of any file of its user; change
  limits, priority and processors of the trainer; fill uncounted memory; and, as root, read the kernel's log.

What it does not contain: flaws of the kernel, of Landlock, or of sandlock's supervisor, which answers system calls of
strangers inside the trainer's process; whether a path exists, and its size and times; which packages are installed and
what they hold; processor time of many threads until the time is up; side channels of time and caches.
"""

import os
import platform
import selectors
import shutil
import sys
import sysconfig
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from hailproof.errors import ConfigError
from hailproof.sandbox.base import Library, Limits, Outcome, Status

if TYPE_CHECKING:
    import sandlock

DEFAULT_LIMITS = Limits(seconds=5.0, memory=512 * 2**20)
"""CPython, numpy and sympy alone take more than a program gets in Monty."""

GRACE = 1.0
"""Seconds that a killed process may take to be gone."""

ERRORS = 4096
"""Bytes of the end of the error stream that are kept."""

_DENIED = (
    # attributes of files, which Landlock leaves alone
    *("fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "utimensat", "file_setattr"),
    *("setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr"),
    "removexattrat",
    # other processes, by number: the trainer has the same user
    *("prlimit64", "setpriority", "ioprio_set", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"),
    *("pidfd_open", "pidfd_send_signal", "pidfd_getfd", "migrate_pages", "move_pages"),
    # memory that nobody counts, and writing that is no writing to a file
    *("memfd_create", "memfd_secret", "pipe2", "socketpair", "eventfd2", "mq_open", "mlock", "mlock2", "mlockall"),
    *("sync", "syncfs", "flock"),
    # network beyond what the supervisor refuses
    *("listen", "accept", "accept4", "setsockopt"),
    # new threads go by clone, which the supervisor sees
    "clone3",
    # rights of root
    *("syslog", "chroot", "fanotify_init", "clock_settime", "settimeofday", "adjtimex", "clock_adjtime", "vhangup"),
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid"),
    *("capset", "setrlimit", "mknodat", "inotify_init1"),
)

_DENIED_X86 = ("chmod", "chown", "lchown", "utime", "utimes", "futimesat", "pipe", "inotify_init", "mknod")
"""The older forms of the same calls, which other processors never had."""

_NOWHERE = "tcp://192.0.2.1:9"
"""An address that is never in use (RFC 5737); naming one lets the supervisor, not Landlock, judge connections."""


@final
class OsSandbox:
    """Runs programs in confined CPython processes, with the packages of this Python, one after the other.

    Args:
        limits: What each program may use; :data:`DEFAULT_LIMITS` if not given.
        libraries: Modules that programs may import, by name. Their source runs inside, with the program's rights.

    Raises:
        ConfigError: If the package is not installed, this system cannot confine a process, or a library has no name
            of a module.
    """

    honest_seconds = 0.3

    def __init__(self, limits: Limits | None = None, libraries: Mapping[str, Library] | None = None) -> None:
        self.limits = limits or DEFAULT_LIMITS
        self._sandlock = _imported()
        self._folder = Path(tempfile.mkdtemp(prefix="hailproof-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        for name, library in (libraries or {}).items():
            if not name.isidentifier():
                raise ConfigError(f"{name!r} is no name of a module that programs could import.")
            (self._folder / f"{name}.py").write_text(library.source, encoding="utf-8")
        start = self._confined("print(6 * 7)", Limits(seconds=30.0))
        if start != Outcome("ok", "42\n"):
            raise ConfigError(f"This system cannot confine a process ({start.reason}); use the Monty sandbox.")

    def run(self, programs: Sequence[str]) -> list[Outcome]:
        """Runs each program in a process of its own."""
        return [self._run(program) for program in programs]

    def _run(self, program: str) -> Outcome:
        if len(program) > self.limits.source:
            return Outcome("error", "", f"the program has more than {self.limits.source} characters")
        try:
            return self._confined(program, self.limits)
        except UnicodeEncodeError as error:
            return Outcome("error", "", f"UnicodeEncodeError: {error}"[:200])

    def _confined(self, program: str, limits: Limits) -> Outcome:
        path = self._folder / "program"  # without a suffix, so that no library can have its name
        path.write_bytes(program.encode())
        command = [sys.executable, "-s", "-B", "-u", "-X", "utf8", str(path)]
        piped, null = self._sandlock.StdioMode.PIPED, self._sandlock.StdioMode.NULL
        deadline = time.monotonic() + limits.seconds
        try:
            process = self._policy(limits).popen(command, stdin=null, stdout=piped, stderr=piped)
        except (RuntimeError, self._sandlock.SandlockError) as error:
            return Outcome("crash", "", f"the sandbox did not start: {error}"[:200])
        with process:
            printed, errors, broken = _read(process, deadline, limits.output)
            if broken is not None:
                process.kill()
            result = process.wait(GRACE if broken else max(deadline - time.monotonic(), 0.001))
        status, reason = _verdict(result, broken, errors)
        return Outcome(status, printed.decode(errors="replace"), reason)

    def _policy(self, limits: Limits) -> "sandlock.Sandbox":
        return self._sandlock.Sandbox(
            fs_readable=[*_installation(), str(self._folder)],
            cwd=str(self._folder),
            net_allow=[_NOWHERE],
            net_deny=["*"],
            max_memory=limits.memory,
            max_processes=1,
            extra_deny_syscalls=_DENIED + (_DENIED_X86 if platform.machine() == "x86_64" else ()),
            no_coredump=True,
            clean_env=True,
            # One thread for linear algebra; sets in the same order each time, so that no verdict is a matter of luck.
            env={"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )


def _imported():
    try:
        import sandlock
    except (ImportError, OSError) as error:
        raise ConfigError(
            "The sandbox of the operating system needs sandlock: pip install 'hailproof[sandbox]'."
        ) from error
    if sandlock.landlock_abi_version() < sandlock.min_landlock_abi():
        raise ConfigError("The sandbox of the operating system needs Linux 6.12 or newer with Landlock switched on.")
    return sandlock


def _installation() -> list[str]:
    """Paths that CPython reads to start and to import; not the folder of its executables, nor configuration."""
    paths = {
        sys.executable,
        os.path.realpath(sys.executable),
        os.path.join(sys.prefix, "pyvenv.cfg"),
        os.path.join(sys.base_prefix, "lib"),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"),
    }
    return sorted(path for path in paths if os.path.exists(path))


def _read(process: "sandlock.sandbox.Process", deadline: float, limit: int) -> tuple[bytes, bytes, Status | None]:
    """What a process prints, the end of its errors, and the limit that it broke, if any."""
    assert process.stdout is not None and process.stderr is not None
    printed, errors = bytearray(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return bytes(printed), errors, "timeout"
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 2**16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    printed += chunk
                    if len(printed) > limit:
                        return bytes(printed[:limit]), errors, "output"
                else:
                    errors = (errors + chunk)[-ERRORS:]
    return bytes(printed), errors, None


def _verdict(result: "sandlock.Result", broken: Status | None, errors: bytes) -> tuple[Status, str]:
    """What the end of a process means; the program itself can forge all but the limits, to no gain."""
    end = result.reason.name if result.reason is not None else "EXITED"
    if broken == "output":
        return "output", "it printed too much"
    if broken == "timeout" or end == "TIMEOUT":
        return "timeout", "it ran too long"
    if end == "KILLED":
        return "memory", "it was killed for taking too much memory"
    if end == "SIGNALED":
        return "crash", f"it ended by signal {result.signal}"
    if result.exit_code == 0:
        return "ok", ""
    lines = errors.decode(errors="replace").strip().splitlines()
    reason = lines[-1][:200] if lines else f"it ended with status {result.exit_code}"
    return ("memory" if reason.startswith("MemoryError") else "error"), reason
