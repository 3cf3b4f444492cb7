"""Commands as processes, and the processes that a process has started, as Linux shows them."""

import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from hailproof.campaigns.sweep import fresh_processes


def commanded(folder: Path, arguments: list[str], out: Path, err: Path) -> None:
    """Gives a command of hailproof, in a process that has imported everything."""
    from hailproof.cli import main

    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["hailproof", *arguments]
    main()


def forked(folder: Path, arguments: list[str], out: Path, err: Path) -> BaseProcess:
    """Starts a command in a folder where only the first one takes the seconds of an import.

    Args:
        folder: Where the command is given.
        arguments: What comes after ``hailproof``.
        out: The file that takes its output.
        err: The file that takes its errors.
    """
    process = fresh_processes().Process(target=commanded, args=(folder, arguments, out, err))
    process.start()
    return process


def below(number: int) -> list[Path]:
    """The folders in ``/proc`` of the processes below one, a parent before its children."""
    try:
        threads = [*Path(f"/proc/{number}/task").iterdir()]
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []  # it has ended, or a thread of it
    return [each for child in children for each in (Path("/proc", child), *below(int(child)))]


def runs_below(number: int) -> list[Path]:
    """Those of them that play a run: the server forks them, or where there is an accelerator they are spawned."""
    def says(process: Path) -> str:
        try:
            return (process / "cmdline").read_text()
        except OSError:
            return ""

    found = below(number)
    servers = [each for each in found if "multiprocessing.forkserver" in says(each)]
    forked = [each for server in servers for each in below(int(server.name))]
    return forked + [each for each in found if "spawn_main" in says(each)]
