"""How a program ends: with one line for what its user can change, with a traceback for everything else."""

import errno
import os
import select
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

PACKAGE = Path(__file__).parents[1]
SCRIPTS = PACKAGE.parent / "scripts"
# errors of the machine, not of the code
OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),  # of its disks
    *(errno.EACCES, errno.EPERM, errno.EMFILE),
}
_LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited", "communicator was aborted")
_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "Unable to allocate", "Cannot allocate memory")


class InputError(ValueError):
    """The user's input cannot be used. The message is one line: the thing, its value, what was wanted, the way out.

    Any other exception is a fault of the code or of the machine.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message without its full stop; its type where it has no message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".:")


def first_few(items: Iterable[object], most: int = 3) -> str:
    """The first items, for a message; "..." where there are more."""
    shown = [*map(str, items)]
    return ", ".join(shown[:most] + ["..."] * (len(shown) > most))


def meant(path: str | Path) -> str:
    """What lies beside a path that does not exist and has a name like it, in brackets; empty if there is nothing."""
    above, name = Path(path).expanduser().parent, Path(path).name
    near = get_close_matches(name, os.listdir(above) if os.access(above, os.R_OK) else [], 1, 0.75)  # noqa: PTH208
    return f" (did you mean {above / near[0]}?)" if near else ""


class RunError(RuntimeError):
    """A run cannot continue, for a reason that its user can act on. One line, as an InputError."""


@contextmanager
def noted(note: Callable[[], str]) -> Iterator[None]:
    """Attach `note()`, as the step of a run, to an exception that leaves the block. It is printed with the error."""
    try:
        yield
    except Exception as error:
        error.add_note(note())
        raise


class OtherRankError(RunError):
    """Another rank failed and prints why. This one ends silently."""


def run_program(main: Callable[[list[str]], object], stopped: str, argv: list[str] | None = None) -> NoReturn:
    """Run a script and exit with its code.

    `main` takes the command line without the program's name and without --traceback. A number or text that it returns
    goes to `sys.exit`; anything else is success. An InputError, a RunError or an error of the machine (a full disk, a
    folder without permission, too little memory) is one line that begins with "error:", exit code 1. Ctrl-C prints
    `stopped` and exits with 130. Any other exception prints its last frames in this project, its notes and its
    message, or with --traceback the whole traceback; exit code 1. Of several processes on a machine one prints.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    whole = "--traceback" in given
    try:
        code = main([argument for argument in given if argument != "--traceback"])
    except KeyboardInterrupt:
        sys.stdout.flush()
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"\n{stopped}", file=sys.stderr)
        code = 130
    except Exception as error:
        code = _fail(error, whole)
    sys.exit(code if isinstance(code, int | str) else None)


def check_first(check: Callable[[list[str]], object], argv: list[str] | None = None) -> None:
    """Check the command line before the imports of a script, which take seconds. Errors end as in `run_program`.

    A progress bar that goes to a file is written twice a minute instead of ten times a second.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # read by tqdm when it is imported
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        check([argument for argument in given if argument != "--traceback"])
    except Exception as error:
        sys.exit(_fail(error, "--traceback" in given))


def _fail(error: Exception, whole: bool) -> int:
    """Print an error. Returns the exit code."""
    if not isinstance(error, OtherRankError) and not (isinstance(error, BrokenPipeError) and _nobody_reads()):
        sys.stdout.flush()
        text = "".join(traceback.format_exception(error)).rstrip() if whole else explain(error)
        if lost_the_others(error):
            _wait_for_the_end()
        if _is_first_to_say(text, refusal=isinstance(error, InputError)):
            print(text, file=sys.stderr)
    return 1


def explain(error: Exception) -> str:
    """The text for an exception that ends a program: "error: ..." in one line, or a short traceback."""
    notes = getattr(error, "__notes__", [])
    if isinstance(error, InputError | RunError):
        return " ".join([f"error: {_own_message(error)}", *notes])
    if lost_the_others(error):
        rank = os.environ.get("RANK", "0")
        said = "which has ended. Why stands in its own last lines."
        return " ".join([f"error: process {rank} has lost another process of the run, {said}", *notes])
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        return " ".join([f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}.", *notes])
    text = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    ):
        first = ". ".join(text.strip().split("\n")[0].split(". ")[:2]).rstrip(".") or "no more could be had"
        way_out = (
            "Take less at a time: a smaller per_device_train_batch_size or image_size in training, else a "
            "smaller --batch_size."
        )
        return " ".join([f"error: not enough memory ({first}). {way_out}", *notes])
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(frame.filename)]
    shown = [*ours[-3:], *([frames[-1]] if frames and frames[-1] not in ours else [])]
    lines = ["This is a fault of the program, not of what it was given; --traceback shows all of it:"]
    lines += [f"  {frame.filename}:{frame.lineno} {frame.name}: {frame.line}" for frame in shown]
    if type(error.__cause__).__name__ == "_RemoteTraceback":  # of a process of a pool, whose frames are text
        lines += [line for line in str(error.__cause__).splitlines() if line.strip(' "')][-7:-1]
    lines += [line.rstrip("\n") for line in traceback.format_exception_only(error)]
    return "\n".join(lines)


def is_fault(error: Exception) -> bool:
    """Whether a bug in this project raised it. For places where a library may raise anything for a damaged file."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        bool(frames)
        and _is_ours(frames[-1].filename)
        and not isinstance(error, InputError | RunError | OSError | MemoryError)
    )


def lost_the_others(error: Exception) -> bool:
    """Whether a collective failed because another process of the run ended. That process prints the error."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return several and isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


def _own_message(error: Exception) -> str:
    """The message. torch puts a data worker's traceback into it: then the worker's message."""
    text = str(error)
    return (
        text.rpartition(f"{type(error).__name__}: ")[2].strip()
        if text.startswith("Caught ") and "Traceback" in text
        else text
    )


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(PACKAGE) or Path(filename).is_relative_to(SCRIPTS)


def _nobody_reads() -> bool:
    """Whether stdout has no reader any more, as before `| head`. If so, drop what is still to be printed."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(1, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True


def _wait_for_the_end() -> None:
    """Give the launcher time to end this process after another one failed."""
    with suppress(KeyboardInterrupt):
        time.sleep(10)


def _is_first_to_say(text: str, *, refusal: bool) -> bool:
    """Whether no other process of this machine printed the same. Before the process group exists, a refusal is printed
    by rank 0 and any other error by each process.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_initialized():
        return not refusal or os.environ.get("LOCAL_RANK", "0") == "0"
    key = f"seg_recipe/error/{os.environ.get('GROUP_RANK', '0')}/{zlib.crc32(text.encode())}"
    try:
        return torch.distributed.distributed_c10d._get_default_store().add(key, 1) == 1
    except Exception:  # the store ended with its process: better twice than never
        return True
