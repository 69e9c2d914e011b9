"""Stopping well: SIGTERM and Ctrl-C become a checkpoint after the running step, on all ranks together."""

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


def any_rank(own: bool) -> bool:
    """Whether any rank says yes. A collective: every rank calls it at the same point and gets the same answer."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
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
    """The values of a tensor, read on the host later, without a wait for what its device was given to do since."""

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
    """Whether somebody asked this run to stop. Signals ask through `listening`, other code through `set`."""

    def __init__(self):
        self._asked = False
        self._before: LateCopy | None = None

    def set(self) -> None:
        """Ask the run to stop after its current step."""
        self._asked = True

    def clear(self) -> None:
        """Take back what was asked: it was done."""
        self._asked, self._before = False, None

    def agreed(self) -> bool:
        """Whether any rank was asked to stop. A collective: every rank calls it at the same point and gets the same
        answer. Among GPUs it is that of the call before, which needs no wait.
        """
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not (distributed and torch.distributed.get_backend() == "nccl"):
            return any_rank(self._asked)
        said = torch.full((), float(self._asked), device=torch.device("cuda", torch.cuda.current_device()))
        torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX)
        before, self._before = self._before, LateCopy(said)
        return before is not None and bool(before.read())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn SIGTERM and the first Ctrl-C into a request while the block runs; the second Ctrl-C interrupts
        at once.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        owner, heard = os.getpid(), False

        def ask(number: int, frame: FrameType | None) -> None:
            if (
                os.getpid() != owner
            ):  # a data worker, which has the handler from its parent and goes on until that has no more need of it
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


def heed_the_parent_alone() -> None:
    """Have this process, started by WorkerContext, end by SIGTERM only when its own parent sent it, which is how stuck
    workers are ended.

    SLURM's scancel, systemd, docker and `timeout` send SIGTERM to every process of a run. torch installs its own
    handler in data workers, after ours was inherited, and a worker that dies of such a signal takes the run with it,
    before the checkpoint that the run was asked for. A worker whose parent died ends by itself within seconds. Does
    nothing in a process that was started otherwise.
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
            """Blocks SIGTERM from the first moment on, hence in every thread that the process will have: one that took
            it would die.
            """
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    class WorkerContext(multiprocessing.context.ForkContext):
        """Forks processes in which SIGTERM waits for `heed_the_parent_alone`."""

        Process = _Worker


def follow_launcher(follow: bool = True) -> None:
    """Have this process asked to stop, or no longer, when `accelerate launch`, its parent, dies (Linux).

    accelerate's simple launcher does not pass SIGTERM on to its worker, which then trains on unseen; and a launcher
    that is killed outright leaves its workers behind. Does nothing when the process was not started by a launcher.
    """
    if sys.platform == "linux" and "ACCELERATE_DYNAMO_BACKEND" in os.environ:
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGTERM if follow else 0)


def leave_together() -> None:
    """The last thing that processes do together: wait for one another, let gloo's threads finish, and leave the
    process group.

    A process that exits right after a collective is aborted now and then (SIGABRT, about one in five on two processes
    with torch 2.13): a thread of gloo still holds a tensor of Python's, and wants the interpreter's lock to let go of
    it while the interpreter shuts down. After a barrier, which holds none, the threads have only the lock to wait for,
    and they get it in the pause. May go when torch's ProcessGroupGloo lets go of its tensors before it reports a
    collective as done.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        time.sleep(0.2)
        torch.distributed.destroy_process_group()
