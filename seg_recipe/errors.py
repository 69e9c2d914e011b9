"""What is refused, and how a program ends: one line for what its user can change, a traceback for everything else."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

PACKAGE = Path(__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"
# what the machine refuses a program, whatever the program does: not a fault of the code
OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.EIO, errno.ESTALE}


class InputError(ValueError):
    """Something that the user gave cannot be used. The message is one line: the thing, its value, what was wanted, the way out.

    Everything that this project refuses is one of these; any other exception is a fault of the code or of the machine.
    """


class RunError(RuntimeError):
    """A run cannot go on, for a reason that its user can act on. One line, as an InputError; the process that meets it says it."""


def run_program(main: Callable[[list[str]], int | str | None], stopped: str, argv: list[str] | None = None) -> NoReturn:
    """Run a script to its end and exit with its code.

    `main` takes the command line without the program's name and without --traceback, and returns what `sys.exit` takes. An InputError,
    and what the machine refuses (a full disk, a folder that may not be read), is one line that begins with "error:", exit code 1. Ctrl-C
    prints `stopped` and exits with 130. Any other exception is a fault of ours: its last frames in this project, its notes and its
    message, or the whole traceback with --traceback; exit code 1. Under a launcher only the first process of a machine prints an
    InputError, which all of them meet.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    whole = "--traceback" in given
    try:
        code = main([argument for argument in given if argument != "--traceback"])
    except KeyboardInterrupt:
        sys.stdout.flush()
        if _prints():
            print(f"\n{stopped}", file=sys.stderr)
        code = 130
    except Exception as error:
        sys.stdout.flush()
        if whole:
            traceback.print_exception(error)
        else:
            print(explain(error), file=sys.stderr)
        code = 1
    sys.exit(code)


def explain(error: Exception) -> str:
    """What is said of an exception that ends a program: "error: ..." in one line, or a short traceback; empty if another rank says it."""
    if isinstance(error, InputError):
        return f"error: {error}" if _prints() else ""
    if isinstance(error, RunError):
        return f"error: {error}"
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        place = f": {error.filename}" if error.filename else ""
        return "\n".join([f"error: {error.strerror}{place}", *getattr(error, "__notes__", ())])
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE) or Path(frame.filename).is_relative_to(SCRIPTS)]
    shown = [*ours[-3:], *([frames[-1]] if frames and frames[-1] not in ours else [])]
    lines = ["This is a fault of the program, not of what it was given; --traceback shows all of it:"]
    lines += [f"  {frame.filename}:{frame.lineno} {frame.name}: {frame.line}" for frame in shown]
    lines += [line.rstrip("\n") for line in traceback.format_exception_only(error)]
    return "\n".join(lines)


def _prints() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"
