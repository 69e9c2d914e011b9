"""The parts of `python -m scripts.bench`: this project and the stock ways, measured by turns.

measuring.py    turns, ratios with their spread, peak memory, the machine
table.py        rows with their targets and verdicts, as a table; that of docs/speed.md is made of docs/bench.json
eager.py        the losses that ours is compared with, and the float64 oracle
stock.py        the stock way to train and evaluate, each step that makes it slow named
contestants.py  processes that take turns at training and evaluating
ranks.py        what one and two processes run under `accelerate launch`
loss.py, running.py, data.py  the parts of the bench: from a Plan to rows
plan.py         the sizes of a run, and the pictures that it works on
"""

PARTS = ("loss", "train", "evaluate", "input", "pairs", "processes")
FULL_PAIRS, FULL_SIZE = 100_000, 512
"""The sizes of the targets. With others the table has no target for what depends on them."""
