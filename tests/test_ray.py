"""Runs on a Ray cluster: two machines, one process killed in the middle, and what is said of a run that fails."""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import below
from tiny_runs import TINY

from hailproof.campaigns import ray_engine
from hailproof.campaigns.engines import engine_named
from hailproof.campaigns.ray_engine import RayEngine, room_of
from hailproof.campaigns.sweep import Job, merged, play_job
from hailproof.errors import ConfigError
from hailproof.runs.run import CHECKPOINT_EVERY

ROUNDS = 8
SETTINGS = merged(TINY, {"rounds": ROUNDS, "attack": {"name": "text"}})


def job(root: Path, **changes) -> Job:
    return Job(merged(SETTINGS, changes), root)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def timeless(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines(folder)]


def holder_of(path: Path) -> int | None:
    """The process that has a file open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) == str(path) for link in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue  # the process or a file of it is gone, or is not ours to look at
    return None


def stands_after(folder: Path, round: int) -> bool:
    """Whether a run would go on from the checkpoint of a round or a later one."""
    path = folder / "checkpoint" / "state.json"
    return path.exists() and json.loads(path.read_text())["round"] >= round


class Killer(threading.Thread):
    """Kills the process that plays a run, once, as soon as the first checkpoint is followed by no summary."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.killed: int | None = None
        self.written: list[str] = []
        self.early = False

    def run(self) -> None:
        path, process = self.folder / "rounds.jsonl", None
        while process is None:
            time.sleep(0.05)
            process = holder_of(self.folder / ".lock")
        while not stands_after(self.folder, CHECKPOINT_EVERY):
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        self.killed, self.early = process, not (self.folder / "summary.json").exists()
        self.written = path.read_text().splitlines()


@pytest.fixture
def two_machines(monkeypatch):
    """A cluster of two nodes with one CPU each, which ``RAY_ADDRESS`` names."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_wrong_one_stops_nobody(two_machines, tmp_path, monkeypatch):
    import ray

    right, wrong = job(tmp_path / "ray"), job(tmp_path / "ray", seed=1)
    wrong.folder.mkdir(parents=True)
    (wrong.folder / "summary.json").write_text("[]")
    killer = Killer(right.folder)
    killer.start()
    ended: list[tuple[str, str]] = []
    monkeypatch.chdir(tmp_path)
    engine = RayEngine(0, 0.0)
    assert engine.workers == 2
    with pytest.raises(ConfigError, match="No machine of the Ray cluster has 1 CPU and 1000 GPUs for a run"):
        RayEngine(1, 1000).play([right], lambda each, failure: ended.append((each.folder.name, failure)))
    assert not ended and not ray.is_initialized()
    nearby = [Job(each.settings, Path("ray")) for each in (right, wrong)]  # relative, as on the command line
    engine.play(nearby, lambda each, failure: ended.append((each.folder.name, failure)))
    assert not ray.is_initialized()

    assert [name for name, _ in ended] == [wrong.folder.name, right.folder.name]
    assert "summary.json is damaged" in ended[0][1] and ended[1][1] == ""
    assert right.summary is not None and right.summary["rounds"] == ROUNDS
    assert [line["round"] for line in lines(right.folder)] == list(range(1, ROUNDS + 1))

    assert killer.killed is not None and killer.early
    assert CHECKPOINT_EVERY <= len(killer.written) < ROUNDS
    # What the first process wrote before its checkpoint stands, seconds included: the second did not start anew.
    written = (right.folder / "rounds.jsonl").read_text().splitlines()
    assert written[:CHECKPOINT_EVERY] == killer.written[:CHECKPOINT_EVERY]
    alone = job(tmp_path / "alone")
    play_job(alone)
    assert timeless(right.folder) == timeless(alone.folder)
    assert len({line["reward"] for line in lines(alone.folder)}) > 1


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started_and_ended(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_engine, "RETRIES", 0)
    killed = job(tmp_path)
    threading.Thread(target=kill_task, daemon=True).start()
    started, ended = [], []

    def done(each: Job, failure: str) -> None:
        started.append(ray.is_initialized())
        ended.append((each, failure))

    RayEngine(1, 0.0).play([killed], done)
    assert started == [True] and not ray.is_initialized()
    assert ended == [(killed, "its process died, and 0 times again")]


def kill_task() -> None:
    """Kills the process that plays a run on a cluster of this process, as soon as Ray has named it after its task."""
    while True:
        for process in below(os.getpid()):
            with suppress(OSError):  # it has ended
                if (process / "cmdline").read_text().startswith("ray::_attempt"):
                    os.kill(int(process.name), signal.SIGKILL)
                    return
        time.sleep(0.05)


class FakeRay:
    """As much of Ray as the engine uses; a task ends when it is waited for."""

    exceptions = SimpleNamespace(WorkerCrashedError=type("W", (Exception,), {}), RayError=type("R", (Exception,), {}))

    def __init__(self, answers: list) -> None:
        self.answers = answers
        self.flying: set[int] = set()
        self.most = 0
        self.options: dict = {}
        self.seen: list[tuple] = []
        self.canceled: list[int] = []

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict]:
        return [{"Alive": True, "Resources": {"CPU": 3.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def remote(self, **options):
        self.options = options
        return lambda function: SimpleNamespace(remote=self._fly)

    def _fly(self, *arguments) -> int:
        self.seen.append(arguments)
        self.flying.add(len(self.seen) - 1)
        self.most = max(self.most, len(self.flying))
        return len(self.seen) - 1

    def wait(self, references: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        assert set(references) == self.flying and num_returns == 1
        last = references[-1]
        self.flying.discard(last)
        return [last], references[:-1]

    def get(self, reference: int) -> str:
        answer = self.answers[reference]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, reference: int, force: bool) -> None:
        self.canceled.append(reference)


def with_fake(monkeypatch, answers: list) -> FakeRay:
    fake = FakeRay(answers)
    monkeypatch.setattr(ray_engine, "_installed", lambda: fake)
    return fake


@pytest.mark.parametrize(("workers", "shown", "most"), [(1, 1, 1), (2, 2, 2), (0, 3, 5)])
def test_so_many_runs_are_in_flight(tmp_path, monkeypatch, workers, shown, most):
    fake = with_fake(monkeypatch, [""] * 5)
    engine, ended = RayEngine(workers, 0.0), []
    assert engine.workers == shown
    engine.play([job(tmp_path, seed=seed) for seed in range(5)], lambda each, failure: ended.append(each.seed))
    assert sorted(ended) == [0, 1, 2, 3, 4] and fake.most == most and not fake.canceled
    assert fake.options == {"num_cpus": 1, "num_gpus": 0.0, "max_retries": 3, "max_calls": 1}


def test_reasons_are_one_sentence(tmp_path, monkeypatch):
    crashed, other = FakeRay.exceptions.WorkerCrashedError("x\ny"), FakeRay.exceptions.RayError("\n no disk \n at all")
    with_fake(monkeypatch, ["Task data is missing.", crashed, other, ""])
    reasons = {}
    jobs = [job(tmp_path, seed=seed) for seed in range(4)]
    RayEngine(0, 0.0).play(jobs, lambda each, failure: reasons.setdefault(each.seed, failure))
    assert reasons == {
        0: "Task data is missing.",
        1: "its process died, and 3 times again",
        2: "Ray could not play it (R: no disk)",
        3: "",
    }


def test_an_interruption_cancels_what_is_in_flight(tmp_path, monkeypatch):
    fake = with_fake(monkeypatch, ["", "", ""])

    def interrupted(each: Job, failure: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RayEngine(0, 0.0).play([job(tmp_path, seed=seed) for seed in range(3)], interrupted)
    assert fake.canceled == [0, 1]


@pytest.mark.parametrize(
    ("resources", "gpus", "room"),
    [
        ({"CPU": 8.0}, 0.0, 8),
        ({"CPU": 8.0}, 0.5, 0),
        ({"CPU": 8.0, "GPU": 2.0}, 0.5, 4),
        ({"CPU": 3.0, "GPU": 2.0}, 0.5, 3),
        ({"CPU": 8.0, "GPU": 2.0}, 0.4, 4),  # 0.2 of each GPU is left, which is not 0.4 of one
        ({"CPU": 64.0, "GPU": 1.0}, 0.1, 10),
        ({"CPU": 8.0, "GPU": 5.0}, 2.0, 2),
        ({"GPU": 8.0}, 1.0, 0),  # a head node without CPUs for tasks
    ],
)
def test_room_of_a_machine(resources, gpus, room):
    assert room_of(resources, gpus) == room


@pytest.mark.parametrize(("sees", "visible"), [(False, ""), (True, "3")])
def test_where_and_with_which_gpus_a_run_is_played(tmp_path, monkeypatch, sees, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(ray_engine, "attempt", lambda job: f"{Path.cwd()} {os.environ['CUDA_VISIBLE_DEVICES']}")
    assert ray_engine._attempt(job(tmp_path), tmp_path / "there", sees) == f"{tmp_path / 'there'} {visible}"
    assert ray_engine._attempt(job(tmp_path), tmp_path / "not there", sees) == f"{tmp_path / 'there'} {visible}"


def test_runs_get_gpus_only_if_they_are_given_some(tmp_path, monkeypatch):
    fake = with_fake(monkeypatch, ["", ""])
    fake.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}]
    for gpus in (0.5, 0.0):
        RayEngine(2, gpus).play([job(tmp_path)], lambda each, failure: None)
    assert [sees for _, _, sees in fake.seen] == [True, False] and fake.options["num_gpus"] == 0.0


@pytest.mark.parametrize("gpus", [-1, -0.5, 1.5, 0.00001, float("nan"), float("inf")])
def test_shares_of_a_gpu_that_are_none(gpus, monkeypatch):
    with_fake(monkeypatch, [])
    with pytest.raises(ConfigError, match="--gpus-per-run"):
        RayEngine(1, gpus)


def test_without_ray_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'hailproof\[ray\]'\.$"):
        engine_named("ray", 1, 0.0)
