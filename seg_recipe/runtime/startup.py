"""A quicker start of the programs: `import startup` before the other imports, `startup.imported()` after them.

torch and transformers make 700,000 objects that stay. Python's garbage collector looks through them again and again
while they are imported, and once more when the process ends: a third of the time of `finetune.py --help`, and as many
seconds of each other start.
"""

import gc

gc.disable()


def imported() -> None:
    """What has been made so far stays, and is not looked through again; from here on garbage is collected as ever."""
    gc.freeze()
    gc.enable()
