"""The device that runs compute on."""

import os

import pytest
import torch

from harness import machine, processes
from harness.errors import UserError
from harness.execute import worker


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
    assert two_gpus == [torch.device("cuda:1")]
    with pytest.raises(UserError, match="there is no cuda:2 on this machine; there is cpu, cuda:0, cuda:1"):
        machine.choose("cuda:2")
    assert machine.chosen() == "cuda", "as before"


def test_random_numbers_go_on_on_a_gpu_too(two_gpus, monkeypatch):
    there = {"state": torch.tensor([7], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: there["state"].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: there.update(state=state))
    before, drawn = machine.random_state(torch.device("cuda")), torch.rand(3)
    there["state"] += 1
    machine.set_random_state(torch.device("cuda"), before)
    assert torch.equal(torch.rand(3), drawn)
    assert there["state"] == 7


class OutOfResources(Exception):
    """As Triton's is called."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be …"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "oom"),
        (OutOfResources("out of resource: shared memory, Required: 300000, Hardware limit: 232448."), "oom"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (MemoryError(), "oom"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "failed"),
        (ValueError("out of memory"), "failed"),
    ],
)
def test_a_lack_of_memory_is_told_by_its_words(error, status):
    assert worker._status(error) == status


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
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert machine.cards() == ["7"]
    for card, seen in ((None, ("cuda:1", "4,7")), ("7", ("cuda", "7"))):
        machine.choose("cuda:1")
        see = lambda *_: started.append((machine.chosen(), os.environ["CUDA_VISIBLE_DEVICES"]))  # noqa: E731
        processes.launch(see, "job", card=card)
        machine.choose("auto")
        (target, args) = started.pop()
        target(*args)
        assert started == [seen]
        started.clear()
    assert two_gpus == [], "nobody has touched CUDA"
