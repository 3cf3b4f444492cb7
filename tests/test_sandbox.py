"""Programs of strangers: what they may do, and that nothing else comes of it."""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_programs import CANARY, HELD, HOSTILE, SECONDS, SECRET

from hailproof.errors import ConfigError
from hailproof.sandbox import Library, Limits, MontySandbox, OsSandbox, Outcome, last_line

table = pytest.mark.parametrize(("program", "answer"), [pytest.param(*row[1:], id=row[0]) for row in HOSTILE])


def children() -> set[int]:
    """Direct children of this process that are not dead."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(status.parent.name))
    return found


def state() -> dict[str, object]:
    """All that a program in a sandbox could have changed about this process and the canary."""
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": os.sched_getaffinity(0),
        "environment": dict(os.environ),
        "output": os.fstat(1).st_ino,
        "files": {path.name: (path.stat().st_mode, path.stat().st_mtime_ns) for path in CANARY.iterdir()},
        "secret": (CANARY / "secret").read_text(),
        "attributes": os.listxattr(CANARY / "secret"),
    }


@pytest.fixture(scope="module")
def canary() -> Iterator[None]:
    CANARY.mkdir()
    (CANARY / "secret").write_text(SECRET)
    held = os.open(CANARY / "secret", os.O_RDONLY)
    os.dup2(held, HELD, inheritable=True)
    os.environ["HAILPROOF_SECRET"] = SECRET
    yield
    del os.environ["HAILPROOF_SECRET"]
    os.close(held)
    os.close(HELD)
    (CANARY / "secret").unlink()
    CANARY.rmdir()


def helper(divide=False):
    return (lambda a, b: a / b) if divide else (lambda a, b: a + b)


HELPER = {
    "helper": Library(
        {"add": helper(), "divide": helper(divide=True)}, "def add(a, b): return a + b\ndef divide(a, b): return a / b"
    )
}


@pytest.fixture(scope="module")
def monty(canary: None) -> MontySandbox:
    return MontySandbox(Limits(seconds=SECONDS), HELPER)


def confined(limits: Limits) -> OsSandbox:
    try:
        return OsSandbox(limits, HELPER)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def confined_hostile(canary: None) -> OsSandbox:
    return confined(Limits(seconds=1.0, memory=256 * 2**20))


@pytest.fixture(scope="module")
def confined_friendly() -> OsSandbox:
    return confined(Limits(seconds=30.0, memory=512 * 2**20))


def attack(sandbox: MontySandbox | OsSandbox, program: str, answer: str | None, seconds: float) -> None:
    """Runs a hostile program and looks for what it did."""
    answer_of_this_frame = SECRET
    before, peak, begin = state(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    (outcome,) = sandbox.run([program])
    assert time.monotonic() - begin < seconds
    assert isinstance(outcome, Outcome)
    assert last_line(outcome) in (None, answer)
    assert answer_of_this_frame not in outcome.output + outcome.reason
    assert len(outcome.output.encode(errors="replace")) <= 3 * sandbox.limits.output
    assert len(outcome.reason) <= 200
    assert state() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 * 2**10
    assert sandbox.run(["print(6 * 7)"]) == [Outcome("ok", "42\n")]


@table
def test_monty_contains(monty: MontySandbox, program: str, answer: str | None) -> None:
    others = children()
    monty.run(["1"])
    attack(monty, program, answer, seconds=10.0)
    assert len(children() - others) <= 1


@pytest.mark.slow
@table
def test_the_system_contains(confined_hostile: OsSandbox, program: str, answer: str | None) -> None:
    others = children()
    attack(confined_hostile, program, answer, seconds=10.0)
    assert children() <= others


@pytest.mark.parametrize(
    ("program", "tight", "wide", "status"),
    [
        pytest.param(
            "n = 0\nwhile n < 300_000: n += 1\nprint(n)",
            Limits(seconds=0.01),
            Limits(seconds=60.0),
            "timeout",
            id="time",
        ),
        pytest.param(
            "print(len([0] * 10**6))", Limits(memory=4 * 2**20), Limits(memory=64 * 2**20), "memory", id="memory"
        ),
        pytest.param("print('a' * 20_000)", Limits(output=2**13), Limits(output=2**15), "output", id="output"),
        pytest.param("print(1) # " + "a" * 90, Limits(source=100), Limits(source=101), "error", id="source"),
    ],
)
def test_monty_keeps_each_limit(program: str, tight: Limits, wide: Limits, status: str) -> None:
    assert MontySandbox(tight).run([program])[0].status == status
    assert MontySandbox(wide).run([program])[0].status == "ok"


@pytest.mark.parametrize(
    ("program", "tight", "wide", "status"),
    [
        pytest.param(
            "import time\nprint('early')\ntime.sleep(1)", Limits(0.5, 2**28), Limits(60.0, 2**28), "timeout", id="time"
        ),
        pytest.param("x = bytes(2**28)", Limits(60.0, 2**28), Limits(60.0, 2**29), "memory", id="memory"),
        pytest.param(
            "print('a' * 5000)",
            Limits(60.0, 2**28, output=100),
            Limits(60.0, 2**28, output=10**4),
            "output",
            id="output",
        ),
        pytest.param(
            "print(1) # " + "a" * 90,
            Limits(60.0, 2**28, source=100),
            Limits(60.0, 2**28, source=101),
            "error",
            id="source",
        ),
    ],
)
def test_the_system_keeps_each_limit(program: str, tight: Limits, wide: Limits, status: str) -> None:
    outcome = confined(tight).run([program])[0]
    assert outcome.status == status
    assert len(outcome.output) <= tight.output
    assert confined(wide).run([program])[0].status == "ok"


def test_monty_runs_the_programs_of_others(shared_data: Path) -> None:
    """Codex wrote them for SVAMP; the recorded values lost their signs, and one program has no answer."""
    rows = [json.loads(line) for line in (shared_data / "programs" / "svamp.jsonl").read_text().splitlines()]
    outcomes = MontySandbox().run([row["program"] + "\nprint(ans)" for row in rows])

    def compared(row: dict, outcome: Outcome) -> str:
        line = last_line(outcome)
        if line is None:
            return "broken"
        if float(line) == row["executed"]:
            return "equal"
        return "sign" if abs(float(line)) == row["executed"] else "different"

    assert len(rows) == 999
    assert Counter(map(compared, rows, outcomes)) == {"equal": 978, "sign": 20, "broken": 1}


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Outcome("ok", "1\n2\n"), "2"),
        (Outcome("ok", "1\n  2 \n\n \n"), "2"),
        (Outcome("ok", ""), None),
        (Outcome("ok", "\n \n"), None),
        (Outcome("error", "1\n"), None),
        (Outcome("timeout", "1\n"), None),
    ],
)
def test_last_line(outcome: Outcome, line: str | None) -> None:
    assert last_line(outcome) == line


MARKED = [
    ("\ufeffimport math\nprint(math.floor(4.5))", "4"), ("\ufeff\ufeffprint(4)", None), ("\n\ufeffprint(4)", None),
]  # fmt: skip


@pytest.mark.parametrize(("program", "line"), MARKED)
def test_one_byte_order_mark_before_a_program_is_no_part_of_it(
    monty: MontySandbox, confined_friendly: OsSandbox, program: str, line: str | None
) -> None:
    for sandbox in (monty, confined_friendly):
        assert last_line(sandbox.run([program])[0]) == line


@pytest.mark.parametrize(
    ("program", "line"),
    [
        pytest.param("print(6 * 7)", "42", id="arithmetic"),
        pytest.param("from helper import add\nprint(add(2, 3))", "5", id="library"),
        pytest.param("class A(int): pass\nprint(A(3) + 1)", "4", id="class"),
        pytest.param("import statistics\nprint(statistics.mean([1, 3]))", "2", id="standard library"),
        pytest.param("print('½ € \U0001f600')", "½ € \U0001f600", id="letters"),
        pytest.param("import sys\nprint('no', file=sys.stderr)\nprint('yes')", "yes", id="errors apart"),
        pytest.param("print({'a', 'b', 'c', 'd', 'e'} == 1, hash('a') == hash('a'))", "False True", id="hashes"),
        pytest.param("import sympy as s\nx = s.Symbol('x')\nprint(s.solve(x**2 - 4, x))", "[-2, 2]", id="sympy"),
        pytest.param("import numpy as n\nprint(n.linalg.solve(n.eye(99), n.ones(99)).sum())", "99.0", id="numpy"),
    ],
)
def test_the_system_runs_ordinary_programs(confined_friendly: OsSandbox, program: str, line: str) -> None:
    if "sympy" in program:
        pytest.importorskip("sympy")
    (outcome,) = confined_friendly.run([program])
    assert outcome == Outcome("ok", outcome.output)
    assert last_line(outcome) == line


def test_the_system_gives_the_same_outcomes_again(confined_friendly: OsSandbox) -> None:
    program = "print({str(i) for i in range(99)})"
    first, broken, second = confined_friendly.run([program, "1 / 0", program])
    assert first == second
    assert broken == Outcome("error", "", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("s.socket().connect(a)", id="tcp"),
        pytest.param("s.socket(s.AF_INET, s.SOCK_STREAM, 262).connect(a)", id="mptcp"),
        pytest.param("x = s.socket()\nx.setblocking(True)\nx.sendto(b'x', 0x20000000, a)", id="fast open"),
        pytest.param("s.socket().sendmsg([b'x'], [], 0x20000000, a)", id="fast open message"),
        pytest.param("x = s.socket()\nx.setsockopt(6, 30, 1)\nx.connect(a)\nx.send(b'x')", id="fast open option"),
        pytest.param("s.socket(s.AF_INET6, s.SOCK_STREAM, 262).connect(('::ffff:' + a[0], a[1]))", id="mapped"),
    ],
)
def test_the_system_has_no_network(confined_friendly: OsSandbox, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        prelude = f"import socket as s, time\na = {server.getsockname()}\n"
        (outcome,) = confined_friendly.run([prelude + way + "\nprint('sent')"])
        assert outcome.status == "error"
        with pytest.raises(TimeoutError):
            server.accept()


def test_the_system_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sandbox = confined(Limits(60.0, 2**28))
    assert [path.name for path in next(tmp_path.iterdir()).iterdir()]
    del sandbox
    assert not list(tmp_path.iterdir())


def test_sandlock_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = "import sys, hailproof.sandbox; print('sandlock' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"False\n"
    monkeypatch.setitem(sys.modules, "sandlock", None)
    with pytest.raises(ConfigError, match=r"pip install 'hailproof\[sandbox\]'"):
        OsSandbox()


def test_an_old_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("sandlock"), "landlock_abi_version", lambda: 5)
    with pytest.raises(ConfigError, match=r"Linux 6\.12"):
        OsSandbox()


def test_a_library_has_the_name_of_a_module() -> None:
    confined(Limits(60.0, 2**28))
    with pytest.raises(ConfigError, match=r"'\.\./evil' is no name"):
        OsSandbox(libraries={"../evil": Library({}, "")})
