"""SIGTERM and Ctrl-C: finish the step, save a checkpoint and stop, on all ranks together."""

import ctypes
import multiprocessing.context
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch


def is_distributed() -> bool:
    """Whether this process belongs to a process group of torch.distributed."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def any_rank(own: bool) -> bool:
    """Whether `own` is true on any rank. A collective: every rank gets the same answer."""
    if not is_distributed():
        return own
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.distributed.get_backend() == "nccl"
        else torch.device("cpu")
    )
    said = torch.tensor(int(own), device=device)
    torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX)
    return bool(said.item())


class LateCopy:
    """A copy of a tensor for the host. Reading it does not wait for work that its device received later."""

    def __init__(self, values: torch.Tensor):
        self._host, self._event = values.detach(), None
        if values.device.type == "cuda":
            pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host, self._event = pinned.copy_(values.detach(), non_blocking=True), torch.cuda.Event()
            self._event.record()

    def read(self) -> Any:
        """The values, as `tolist` gives them."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()


class StopRequest:
    """Whether the run should stop: after a signal (`listening`) or a call of `set`."""

    def __init__(self):
        self._asked = False
        self._before: LateCopy | None = None

    def set(self) -> None:
        """Ask the run to stop after its current step."""
        self._asked = True

    def clear(self) -> None:
        """Withdraw the request, once the run has stopped."""
        self._asked, self._before = False, None

    def agreed(self) -> bool:
        """Whether any rank should stop. A collective: every rank gets the same answer.

        With NCCL it is the answer of the previous call, which needs no wait for the device.
        """
        if not (is_distributed() and torch.distributed.get_backend() == "nccl"):
            return any_rank(self._asked)
        said = torch.full((), float(self._asked), device=torch.device("cuda", torch.cuda.current_device()))
        torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX)
        before, self._before = self._before, LateCopy(said)
        return before is not None and bool(before.read())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn SIGTERM and the first Ctrl-C into a request while the block runs. A second Ctrl-C interrupts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        owner, heard = os.getpid(), False

        def ask(number: int, frame: FrameType | None) -> None:
            if os.getpid() != owner:  # a data worker, which inherited the handler, works until its parent ends it
                return
            nonlocal heard
            if heard and number == signal.SIGINT:
                raise KeyboardInterrupt
            if not heard and os.environ.get("RANK", "0") == "0":
                print(f"\n{signal.Signals(number).name}: finishing this step, then saving.", flush=True)
            self._asked = heard = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def only_parent_terminates() -> None:
    """Ignore SIGTERM in this data worker unless the parent sent it, which ends stuck workers so.

    SLURM's scancel, systemd, docker and `timeout` send SIGTERM to every process of a run. With torch's handler a data
    worker then dies, and the run fails before it saves. A worker whose parent died ends by itself within seconds. Does
    nothing in processes that WorkerContext did not start.
    """
    if not hasattr(signal, "sigwaitinfo") or signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, name="SIGTERM of the parent", daemon=True).start()


if sys.platform == "linux":

    class _Worker(multiprocessing.context.ForkProcess):
        def start(self) -> None:
            """Block SIGTERM before the fork, hence in every thread of the worker."""
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    class WorkerContext(multiprocessing.context.ForkContext):
        """Forks processes in which SIGTERM is blocked until `only_parent_terminates`."""

        Process = _Worker


def follow_launcher(follow: bool = True) -> None:
    """Receive SIGTERM when the parent, `accelerate launch`, dies; or no longer (Linux).

    accelerate's simple launcher does not forward SIGTERM, and a killed launcher leaves its workers running. Does
    nothing without a launcher.
    """
    if sys.platform == "linux" and "ACCELERATE_DYNAMO_BACKEND" in os.environ:
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGTERM if follow else 0)


def leave_together() -> None:
    """Wait for the other ranks, let gloo's threads finish, and destroy the process group.

    A process that exits right after a collective may abort (SIGABRT, one in five on two processes with torch 2.13): a
    thread of gloo releases a tensor, which needs the interpreter's lock, while the interpreter shuts down. A barrier
    has no tensor, and the pause gives the threads the lock. May go when torch's ProcessGroupGloo releases its tensors
    before it reports a collective as done.
    """
    if is_distributed():
        torch.distributed.barrier()
        time.sleep(0.2)
        torch.distributed.destroy_process_group()
