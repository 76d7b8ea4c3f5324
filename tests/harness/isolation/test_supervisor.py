"""What a supervised process may do, and how its end is told: each fault is planted, and nothing may be left of it."""

import os
import signal
import subprocess
import time

import psutil
import pytest

from harness.executors import pool
from harness.executors.local import Local
from harness.executors.pool import Pool
from harness.isolation import lease, memory, tree
from harness.isolation.attempt import Unanswered, attempt
from harness.isolation.output import Output
from harness.isolation.supervisor import Bounds, Ended, Supervised

FAULTS = """
import os, signal, subprocess, sys, threading, time
from harness.isolation.beat import beat

def returns(report): report({"at": os.getpid()})
def raises(report): raise RuntimeError("planted")
def leaves(report): os._exit(3)
def killed(report): os.kill(os.getpid(), signal.SIGKILL)
def hangs(report): time.sleep(600)
def beats(report):
    for _ in range(8):
        time.sleep(0.25)
        beat()
def deaf(report):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report({"at": os.getpid()})
    time.sleep(600)
def threads(report): threading.Thread(target=time.sleep, args=(600,)).start()
def hungry(report):
    kept = [bytearray(1 << 24)]
    while True: kept.append(bytearray(os.urandom(1 << 10) * (1 << 14)))
def spawns(report):
    report({"at": subprocess.Popen(["sleep", "600"], start_new_session=True).pid})
    if os.fork() == 0:
        os.setsid()
        report({"at": os.getpid()})
        time.sleep(600)
    time.sleep(0.3)
def prints(report):
    os.write(1, b"first ")
    for _ in range(100): os.write(2, b"x" * 1000)
    os.write(1, b" last")
def garbles(report):
    pipe = report.__closure__[0].cell_contents.fileno()
    os.write(pipe, b"garbage" + bytes(4))
    report({"at": 1})
    os.write(pipe, b"\\n\\xff\\n" + b"x" * 100)
    report({"at": 2})
def deserts(report):
    left = subprocess.Popen("sleep 600 & sleep 600", shell=True, start_new_session=True)
    open(__file__ + ".pid", "w").write(str(left.pid))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
def adds(one, other): return one + other
def sleeps(): time.sleep(600)

class Sees:
    def __init__(self, name, folder): self.name, self.folder, self.done = name, folder, folder / name
    def outcome(self): return ("ok", None) if self.done.exists() else None
    def taken(self): return False
    def work(self, report):
        report({"event": "sees", "card": os.environ["CUDA_VISIBLE_DEVICES"]})
        time.sleep(0.1)
        self.done.touch()
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts one of `FAULTS` under bounds; what it reports, and how it ended."""
    (tmp_path / "planted_faults.py").write_text(FAULTS)
    monkeypatch.syspath_prepend(tmp_path)
    import planted_faults

    def start(name, ask=None, **bounds):
        process, said = Supervised(Bounds(**bounds), getattr(planted_faults, name)), []
        while not process.gone:
            said += process.events()
            if said and ask:
                process.ask(ask)
            time.sleep(0.02)
        return said, process.ended

    return start


@pytest.mark.parametrize(
    ("fault", "bounds", "ended"),
    [
        ("returns", {}, Ended(0, "")),
        ("raises", {}, Ended(1, "")),
        ("leaves", {}, Ended(3, "")),
        ("killed", {}, Ended(-signal.SIGKILL, "")),
        ("threads", {}, Ended(0, "")),
        ("hangs", {"timeout": 0.3}, Ended(-signal.SIGTERM, "timeout")),
        ("hangs", {"stall": 0.3}, Ended(-signal.SIGTERM, "stalled")),
        ("beats", {"stall": 1.5}, Ended(0, "")),
    ],
)
def test_how_a_process_ended_is_told(start, fault, bounds, ended):
    assert start(fault, **bounds)[1] == ended


def test_memory_is_bounded_by_a_control_group_or_else_by_each_process(start, monkeypatch):
    _, ended = start("hungry", memory=2_000_000_000)
    assert ended in (Ended(-signal.SIGKILL, "memory"), Ended(1, "")), "killed by the kernel, or a MemoryError"


@pytest.mark.parametrize(("most", "said"), [(None, "its share of the machine's memory"), (2 * 10**9, "2GB of memory")])
def test_who_is_killed_for_memory_is_told_how_much_it_had(most, said):
    status, message = pool._failure(Ended(-signal.SIGKILL, "memory"), Bounds(memory=most))
    assert status == "oom"
    assert f"more than {said} (limits.memory)" in message


@pytest.mark.parametrize("ask", [None, "stop", "kill"])
def test_nothing_is_left_of_what_a_process_started(start, ask):
    said, _ = start("spawns", ask)
    assert said
    assert not [event["at"] for event in said if psutil.pid_exists(event["at"])]


def test_nothing_is_left_when_a_supervisor_is_killed_and_what_is_not_its_own_is_spared(start, tmp_path):
    with tree.no_orphans(), subprocess.Popen(["sleep", "1"], start_new_session=True) as other:
        assert start("deserts") == ([], None)
    assert other.returncode == 0
    left = int((tmp_path / "planted_faults.py.pid").read_text())
    assert left not in [os.getsid(it.pid) for it in psutil.process_iter() if it.name() == "sleep"]


def test_what_is_no_event_is_dropped(start):
    assert start("garbles") == ([{"at": 1}, {"at": 2}], Ended(0, ""))


def test_who_ignores_that_it_should_stop_is_killed(start, monkeypatch):
    said, ended = start("deaf", "stop")
    assert ended == Ended(-signal.SIGKILL, "asked")
    assert not psutil.pid_exists(said[0]["at"])


def test_the_first_and_the_last_of_what_is_printed_are_kept(start, tmp_path):
    start("prints", output=2000, log=tmp_path / "run" / "output.txt")
    kept = (tmp_path / "run" / "output.txt").read_bytes()
    assert kept.startswith(b"first x")
    assert kept.endswith(b"x last")
    assert b"[... 98,011 bytes left out ...]" in kept
    start("returns", log=tmp_path / "none.txt")
    assert not (tmp_path / "none.txt").exists()


def test_output_is_never_written_through_a_link_nor_waits_for_a_pipe(tmp_path):
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "output.txt").symlink_to(tmp_path / "theirs")
    os.mkfifo(tmp_path / "pipe")
    for name in ("output.txt", "pipe"):
        output = Output(tmp_path / name, 100)
        output.add(b"printed")
        output.close()
    assert (tmp_path / "theirs").read_text() == "kept"


def test_a_call_that_may_never_return_is_bounded(start):
    import planted_faults

    assert attempt(planted_faults.adds, 1, 2, seconds=60) == 3
    with pytest.raises(Unanswered, match="does not end within 0 s"):
        attempt(planted_faults.sleeps, seconds=0.2)
    with pytest.raises(Unanswered, match="exit code 1"):
        attempt(planted_faults.adds, 1, "a", seconds=60)


def test_each_of_two_jobs_at_a_time_has_a_card_to_itself(start, tmp_path):
    import planted_faults

    now, seen = {}, []

    def tell(job, event):
        if event["event"] == "sees":
            assert event["card"] not in now.values()
            now[job.name] = event["card"]
            seen.append(event["card"])
        else:
            assert event == {"event": "end", "status": "ok", "error": None}
            del now[job.name]

    for devices, cards, sets in ((1, "3 GPU-b", {"3", "GPU-b"}), (2, "0 1 2 3", {"0,1", "2,3"})):
        (tmp_path / str(devices)).mkdir()
        jobs = [planted_faults.Sees(str(number), tmp_path / str(devices)) for number in range(6)]
        executor = Local(2, devices)
        executor.cards = cards.split()
        assert not Pool(executor, Bounds(), 0, tell=tell, say=print).run(jobs)
        assert (len(seen), {*seen}) == (6, sets)
        seen.clear()


def test_the_kernel_s_word_is_read(tmp_path):
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert memory.kills(tmp_path) == 2
    assert 0 < memory.machine_memory() <= psutil.virtual_memory().total


def test_a_run_is_worked_on_by_one_process_and_a_dead_one_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE", 0.3)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with lease.hold(tmp_path):
            os.write(write, b"!")
            time.sleep(600)
    os.read(read, 1)
    with pytest.raises(lease.Taken), lease.hold(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with lease.hold(tmp_path):
        pass


def test_the_lease_of_another_host_is_held_by_its_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE", 0.1)
    with lease.hold(tmp_path):
        pass
    (tmp_path / "checkpoint" / "lock").write_text("elsewhere 7\n")  # where the kernel does not tell
    assert lease.taken(tmp_path)
    with pytest.raises(lease.Taken), lease.hold(tmp_path):
        pass
    os.utime(tmp_path / "checkpoint" / "lock", (0, time.time() - 2 * lease.STALE))
    assert not lease.taken(tmp_path)
    with lease.hold(tmp_path):
        assert (tmp_path / "checkpoint" / "lock").read_text().split()[1] == str(os.getpid())
