"""One run on several devices: a process (rank) on each makes every batch whole, and computes on its own rows of it.

The process of the run forks the ranks, before anything is computed, and waits for what the first one returns. Where a
rank is killed, it kills the others and ends in the same way, so that the run goes on from its checkpoint.
"""

import contextlib
import copy
import os
import shutil
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from harness import machine
from harness.isolation import tree
from tasks.parts import Part
from zoo.blocks.residual import Residual
from zoo.contract import Model
from zoo.types import Unsupported

T = TypeVar("T")
SETTLED = 0.2
"""Seconds until the death of a rank is seen, if another fails because of it."""


class OneDevice:
    """A run on one device, and what runs on several do in other ways."""

    rank, count, shard = 0, 1, False

    def wrap(self, model: Model, device: torch.device) -> tuple[nn.Module, Model]:
        """What steps on a device call for a model, and the model whose parameters they change."""
        model.to(device)
        return model, model

    def own(self, parts: list[Part]) -> list[Part]:
        """Those parts of a batch that this rank computes."""
        return parts

    def passes(self, parts: list[Part], called: nn.Module) -> Iterator[Part]:
        """Each part when it is to go forward and backward; after the last, gradients are those of the whole batch."""
        yield from parts

    def agree(self, value: float, norm: float, seconds: float) -> tuple[float, float, float]:
        """Loss, gradient norm and seconds of a step, the same on every rank."""
        return value, norm, seconds

    def first(self, make: Callable[[], T]) -> T:
        """What the first rank makes, on every rank."""
        return make()

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, on every rank."""
        return [value]

    def collect(self, trained: Model, model: Model) -> None:
        """Give the first rank's `model` the weights of the one that is trained."""

    def save(self, folder: Path, trained: Model, optimizer: Optimizer) -> dict[str, Any]:
        """What a checkpoint holds of model and optimizer; what is too large for it is written to `folder`."""
        return {"model": trained.state_dict(), "optimizer": optimizer.state_dict()}

    def sweep(self, folder: Path, saved: dict[str, Any]) -> None:
        """Remove what earlier checkpoints wrote to `folder`."""

    def load(self, saved: dict[str, Any], folder: Path, trained: Model, optimizer: Optimizer) -> None:
        """Go on from what `save` returned."""
        trained.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])

    def seed(self, seed: int) -> None:
        """Give every rank random numbers of its own, the first those of a run on one device."""

    def leave(self) -> "OneDevice":
        """Have the first rank go on alone; the others end."""
        return self


ONE_DEVICE = OneDevice()


class DataParallel(OneDevice):
    """Rank `rank` of `count`, each with the whole model; gradients are summed (torch's DistributedDataParallel)."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def wrap(self, model: Model, device: torch.device) -> tuple[nn.Module, Model]:
        """See `OneDevice`."""
        model.to(device)
        settings: dict[str, Any] = {
            "find_unused_parameters": True,
            "gradient_as_bucket_view": True,
            "broadcast_buffers": False,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer torch has another name for the last setting
            return nn.parallel.DistributedDataParallel(model, **settings), model

    def own(self, parts: list[Part]) -> list[Part]:
        """See `OneDevice`. The mean of the ranks' gradients is taken, so that weights are as many times as large."""
        each = len(parts) // self.count
        return [Part(batch, (weight or 0.0) * self.count) for batch, weight in parts[self.rank * each :][:each]]

    def passes(self, parts: list[Part], called: Any) -> Iterator[Part]:
        """See `OneDevice`. Ranks exchange gradients in the last backward pass."""
        with called.no_sync():
            yield from parts[:-1]
        yield parts[-1]

    def agree(self, value: float, norm: float, seconds: float) -> tuple[float, float, float]:
        """See `OneDevice`."""
        own = torch.tensor([value, norm, seconds], dtype=torch.float64)
        every = torch.empty(self.count, 3, dtype=torch.float64)
        torch.distributed.all_gather([*every], own)
        return float(every[:, 0].mean()), float(every[:, 1].amax()), float(every[:, 2].amax())

    def first(self, make: Callable[[], T]) -> T:
        """See `OneDevice`."""
        found = [make() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(found)
        made: T = found[0]  # type: ignore[assignment]
        return made

    def gather(self, value: T) -> list[T]:
        """See `OneDevice`."""
        every: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(every, value)
        return every

    def seed(self, seed: int) -> None:
        """See `OneDevice`."""
        if self.rank:
            torch.manual_seed((seed + self.rank) % 2**63)

    def leave(self) -> OneDevice:
        """See `OneDevice`."""
        if self.rank:
            raise SystemExit
        return ONE_DEVICE


class FullySharded(DataParallel):
    """Ranks each with a part of weights, gradients and moments (torch's fully_shard, FSDP2).

    The first rank has the whole model besides, by which runs are scored and judged.
    """

    shard = True

    def wrap(self, model: Model, device: torch.device) -> tuple[nn.Module, Model]:
        """See `OneDevice`. The layers of stacks are gathered one by one, but for those that share tensors."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        scalars = [name for name, parameter in model.named_parameters() if not parameter.dim()]
        if scalars:
            raise Unsupported(f"parameters without dimensions cannot be sharded: {', '.join(scalars[:3])}; see limits")
        mesh = init_device_mesh(device.type, (self.count,))
        sharded = copy.deepcopy(model)
        for part in list(sharded.modules()):
            if isinstance(part, Residual) and not part.inner.shared_context:
                fully_shard(part, mesh=mesh)
        whole: Any = fully_shard(sharded, mesh=mesh)
        if self.rank == 0:
            model.to(device)
        return whole, whole

    def passes(self, parts: list[Part], called: Any) -> Iterator[Part]:
        """See `OneDevice`. Ranks exchange gradients in the last backward pass."""
        for place, part in enumerate(parts, 1):
            called.set_requires_gradient_sync(place == len(parts))
            yield part

    def collect(self, trained: Model, model: Model) -> None:
        """See `OneDevice`."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        whole = get_model_state_dict(trained, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if self.rank == 0:
            model.load_state_dict(whole)

    def save(self, folder: Path, trained: Model, optimizer: Optimizer) -> dict[str, Any]:
        """See `OneDevice`. Each rank writes its shards."""
        from torch.distributed import checkpoint

        shards = self.first(lambda: f"shards-{time.time_ns()}")
        with _as_os_error():
            checkpoint.save(_state(trained, optimizer), checkpoint_id=folder / shards)
        return {"shards": shards}

    def sweep(self, folder: Path, saved: dict[str, Any]) -> None:
        """See `OneDevice`."""
        for other in folder.glob("shards-*"):
            if other.name != saved["shards"]:
                shutil.rmtree(other, ignore_errors=True)

    def load(self, saved: dict[str, Any], folder: Path, trained: Model, optimizer: Optimizer) -> None:
        """See `OneDevice`."""
        from torch.distributed import checkpoint
        from torch.distributed.checkpoint.state_dict import set_state_dict

        state = _state(trained, optimizer)
        with _as_os_error():
            checkpoint.load(state, checkpoint_id=folder / saved["shards"])
        own = {"model_state_dict": state["model"], "optim_state_dict": state["optimizer"]}
        set_state_dict(trained, optimizer, **own)


def _state(trained: Model, optimizer: Optimizer) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, moments = get_state_dict(trained, optimizer)
    return {"model": model, "optimizer": moments}


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Have what torch's checkpoints raise, no Exception, be an OSError."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        raise OSError(str(error)) from None


def on_ranks(count: int, work: Callable[[OneDevice], T], *, shard: bool = False) -> T:
    """What `work`, done by `count` processes together, returns in the first, or raises in any; all have ended then.

    This process ends as one of them does that is killed or ends otherwise than by returning.
    """
    parent, pids = os.getpid(), dict[Connection, int]()
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        for rank in range(count):
            ours, theirs = Pipe(duplex=False)
            pid = os.fork()
            if pid == 0:
                ours.close()
                _be_rank(parent, theirs, partial(_join, rank, count, listener, shard), work)
            theirs.close()
            pids[ours] = pid
    first = next(iter(pids.values()))
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGTERM))
    try:
        result = _first_result(pids)
    finally:
        signal.signal(signal.SIGTERM, before)
        _kill(pids)
    if isinstance(result, Exception):
        raise result
    found: T = result
    return found


def _first_result(pids: Mapping[Connection, int]) -> Any:
    """What the first rank sends that has something to tell, unless one has ended."""
    ready: Any = wait(list(pids))
    try:
        result = ready[0].recv()
        time.sleep(SETTLED)
    except EOFError:
        os.waitid(os.P_PID, pids[ready[0]], os.WEXITED | os.WNOWAIT)
        result = None
    for pid in pids.values():
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _kill({pipe: other for pipe, other in pids.items() if other != pid})
            _end_as(os.waitstatus_to_exitcode(status))
    return result


def _kill(pids: Mapping[Connection, int]) -> None:
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _end_as(code: int) -> NoReturn:
    """End this process with an exit code, or by a signal."""
    if code < 0:
        with contextlib.suppress(OSError):  # of SIGKILL there is no other
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code or 1)


def _be_rank(parent: int, pipe: Connection, join: Callable[[], T], work: Callable[[T], Any]) -> NoReturn:
    """A rank's process. It stays until it is killed, so that no other one fails before the first to fail is heard."""
    try:
        tree.die_with(parent)
        result = None
        try:
            result = work(join())
        except SystemExit:
            pass
        except Exception as error:
            result = error
        sys.stdout.flush()
        sys.stderr.flush()
        if result is not None:
            pipe.send(result)
        while True:
            signal.pause()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _join(rank: int, count: int, listener: socket.socket, shard: bool) -> DataParallel:
    """Join the process group of this machine: by gloo, and by NCCL where each rank has a GPU."""
    gpus = machine.cards()
    if gpus:
        machine.settle(f"cuda:{rank}", None)
    for name in ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo0" if sys.platform == "darwin" else "lo")
    host, port = listener.getsockname()
    listens = {"master_listen_fd": listener.detach()} if rank == 0 else {}
    forever = timedelta(days=7)  # whoever waits for a dead rank is killed
    store = torch.distributed.TCPStore(host, port, count, is_master=rank == 0, timeout=timedelta(minutes=5), **listens)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=forever)
    return (FullySharded if shard else DataParallel)(rank, count)
