"""The device that runs compute on."""

import pytest
import torch

from harness import machine, processes
from harness.errors import UserError


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs; the list fills with those that are made current."""
    current = []
    monkeypatch.setattr(machine, "_chosen", "auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_a_device_is_chosen_by_name(two_gpus):
    assert machine.pick() == torch.device("cuda")
    for name in ("cpu", "cuda:1", "cuda"):
        machine.choose(name)
        assert machine.pick() == torch.device(name)
    assert two_gpus == [1, 0]
    with pytest.raises(UserError, match="there is no cuda:2 on this machine; there is cpu, cuda:0, cuda:1"):
        machine.choose("cuda:2")
    assert machine.chosen() == "cuda", "as before"


def test_the_processes_of_runs_use_it(two_gpus, monkeypatch):
    started = []

    class Context:
        def Pipe(self, duplex):
            return None, open(__file__)

        def Process(self, target, args, daemon):
            started.append((target, args))
            return self

        def start(self):
            pass

    monkeypatch.setattr(processes, "context", Context)
    machine.choose("cuda:1")
    processes.launch(lambda *args: started.append(machine.chosen()), "job")
    machine.choose("auto")
    (target, args) = started.pop()
    target(*args)
    assert started == ["cuda:1"]
