"""The chaos benchmark in small, and that what it claims is looked at."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loaded import ROOT, script

from hailproof.wire import State, encoded, sealed

bench = script("benchmarks/bench_chaos.py")


@pytest.mark.parametrize(("rounds", "nodes"), [(6, 4), (6, 6), (40, 6), (200, 6), (200, 9)])
def test_whoever_is_needed_for_a_quorum_is_left_alone(rounds: int, nodes: int):
    for seed in range(30):
        plan = bench.planned(rounds, nodes, seed)
        begin, end = plan.partition
        assert end - begin + 1 == min(10, rounds // 4) and 1 < begin <= end < rounds
        assert nodes - len(plan.cut_off) > nodes // 2 and plan == bench.planned(rounds, nodes, seed)
        assert None in plan.kills.values() and any(victim is not None for victim in plan.kills.values())
        assert max(plan.kills) < rounds
        inside = [victim for round, victim in plan.kills.items() if begin - 1 <= round <= end + 1 and round > 3]
        assert set(inside) <= set(plan.cut_off)
    assert len({str(bench.planned(rounds, nodes, seed)) for seed in range(30)}) > 5


def rewritten(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(change(row))}\n" for row in rows))


@pytest.mark.slow
def test_a_swarm_under_chaos_in_small(tmp_path: Path):
    folder = tmp_path / "swarm"
    script = ROOT / "benchmarks" / "bench_chaos.py"
    done = subprocess.run(
        [sys.executable, script, folder, "--nodes", "4", "--seed", "1", "--pace", "2.5"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    said = done.stdout
    assert done.returncode == 0 and said.count("\nok: ") == 4 and "--rounds 200" in said, said + done.stderr[-2000:]
    chaos = bench.Chaos(folder, nodes=4, rounds=6, seed=1, pace=2.5, swarm=next((folder / "kept").glob("chaos-*")).name)
    relays = list(chaos.plan.kills.values()).count(None)
    assert f"killed: {len(chaos.plan.kills) - relays} nodes, {relays} relays" in said and "'refused': " in said
    assert not [*chaos.late(), *chaos.unsigned(), *chaos.apart()] and chaos.learned and chaos.rejected

    def doctored(name: str, change: Callable[[Path], None]) -> Any:
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        change(copy)
        return replace(chaos, folder=copy)

    def of_row(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
        return lambda copy: rewritten(copy / "node-0" / "archive" / "00000002.jsonl", change)

    def learned_from_rejected(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "verdicts": [{"defense": "x", "decision": "reject", "reason": "y"}]}

    changed = doctored("text", of_row(lambda row: {**row, "completion": row["completion"] + "!"}))
    assert "did not sign it" in next(changed.unsigned())
    assert "a defense rejected it" in next(doctored("rejected", of_row(learned_from_rejected)).unsigned())
    gone = doctored("gone", lambda copy: shutil.rmtree(next((copy / "kept").glob("*/00000002/reveal"))))
    assert "did not sign it" in next(gone.unsigned())

    def weights(copy: Path) -> None:
        rewritten(copy / "node-1" / "rounds.jsonl", lambda line: {**line, "weights": "00" * 32})

    def cut(copy: Path) -> None:
        path = copy / "node-1" / "rounds.jsonl"
        path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")

    assert "weights differ" in next(doctored("weights", weights).apart())
    assert "node 1 ended after round 5" in next(doctored("cut", cut).apart())

    def stalled(copy: Path) -> None:
        rewritten(copy / "node-0" / "rounds.jsonl", lambda line: {**line, "stalled": 3.0, "followed": False})

    assert any("node 0 waited for a quorum" in each for each in doctored("stalled", stalled).late())

    def behind(round: int, closed_late: bool) -> Callable[[Path], None]:
        """The node that is cut off in round 5 waited in an earlier one, perhaps in the midst of that."""
        (who,) = chaos.plan.cut_off

        def change(copy: Path) -> None:
            waited = {"stalled": 3.0, "followed": False}
            rewritten(
                copy / f"node-{who}" / "rounds.jsonl",
                lambda line: {**line, **(waited if line["round"] == round else {"stalled": 0.0})},
            )
            if closed_late:
                late(copy, round, chaos.identities[who].key)

        return change

    def late(copy: Path, round: int = 4, only: bytes = b"") -> None:
        for path in sorted((copy / "kept").glob(f"*/{round:08d}/state/*/*")):
            key = bytes.fromhex(path.parent.name)
            if only not in (b"", key):
                continue
            who = next(each for each in chaos.identities if each.key == key)
            place = bench.Place(chaos.swarm, round, "state", key)
            path.write_bytes(sealed(who, place, encoded(State(bytes(32), bytes(32), bytes(32), 2**52))))

    assert any("round 4 took" in each for each in doctored("late", late).late())
    assert any("waited for a quorum in rounds [3]" in each for each in doctored("before", behind(3, False)).late())
    assert not any("waited" in each for each in doctored("behind", behind(3, True)).late())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--rounds", "5"], "at least 6 rounds"),
        (["--nodes", "3"], "and 4 nodes"),
        (["--pace", "0"], "--pace 0.0 is not above 0"),
        ([], "is not empty; name a new folder"),
    ],
)
def test_what_makes_no_chaos_is_refused(wrong: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "there").touch()
    monkeypatch.setattr(sys, "argv", ["bench_chaos.py", str(tmp_path), *wrong])
    with pytest.raises(SystemExit, match=said):
        bench.main()
