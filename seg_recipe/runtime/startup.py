"""Start programs faster: `import startup` before the other imports, call `startup.imported()` after them.

torch and transformers make 700,000 lasting objects. Python's garbage collector searches them again and again while
they are imported, and once more at the end of the process: more than a second.
"""

import gc

gc.disable()


def imported() -> None:
    """Exempt all objects made so far from garbage collection, and collect again from here on."""
    gc.freeze()
    gc.enable()
