"""Processes that a process has started, as Linux shows them."""

from pathlib import Path


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
