"""The rows of the bench with their targets and verdicts, and the table that is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scripts.bench.measuring import CONFIDENCE, Spread

Status = Literal["met", "not met", "undecided", ""]
BEGIN, END = "<!-- bench: written by make bench -->", "<!-- end of bench -->"
FEWEST_ROUNDS = 3
"""Of fewer rounds nothing is said about a target."""
HEADINGS = ("part", "figure", "median", "spread", "rounds", "target", "verdict", "measured")


@dataclass(frozen=True)
class Target:
    """What a figure should be: at least, or at most, `limit`."""

    sense: Literal[">=", "<="]
    limit: float | int

    def __str__(self) -> str:
        return f"{self.sense} {number(self.limit)}"


@dataclass(frozen=True)
class Row:
    """One figure. unit: "x" for a ratio. measured: the quantities behind it, in words. target: None where nothing is
    promised.
    """

    part: str
    figure: str
    value: Spread
    unit: str = "x"
    target: Target | None = None
    measured: str = ""

    @property
    def status(self) -> Status:
        """Met or not met where the whole spread says so; undecided where it lies on both sides of the target, or has
        too few rounds.
        """
        if self.target is None:
            return ""
        if 0 < self.value.rounds < FEWEST_ROUNDS:
            return "undecided"
        within = [
            edge >= self.target.limit if self.target.sense == ">=" else edge <= self.target.limit
            for edge in self.value[1:3]
        ]
        return "met" if all(within) else "undecided" if any(within) else "not met"

    def to_json(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "part": self.part,
            "figure": self.figure,
            **self.value._asdict(),
            "unit": self.unit,
            "target": asdict(self.target) if self.target else None,
            "status": self.status,
            "measured": self.measured,
        }


def one(value: float | int) -> Spread:
    """A figure that is no matter of rounds: it was measured once."""
    return Spread(float(value), float(value), float(value), 0)


def row_from_json(content: Mapping[str, Any]) -> Row:
    """The row that `to_json` was called on. Its verdict is computed anew from its figures, whatever the file says."""
    value = Spread(content["median"], content["low"], content["high"], content["rounds"])
    target = Target(**content["target"]) if content["target"] else None
    return Row(content["part"], content["figure"], value, content["unit"], target, content["measured"])


def number(value: float | int) -> str:
    """Three significant digits, without an exponent where it can be read without."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cells(row: Row) -> list[str]:
    """What the table shows of a row, in the order of HEADINGS."""
    unit = "x" if row.unit == "x" else f" {row.unit}" if row.unit else ""
    apart = f"{number(row.value.low)} - {number(row.value.high)}" if row.value.rounds > 1 else ""
    rounds = str(row.value.rounds or "")
    target = str(row.target) if row.target else ""
    return [row.part, row.figure, number(row.value.median) + unit, apart, rounds, target, row.status, row.measured]


def plain_table(rows: Sequence[Row]) -> str:
    """For a terminal."""
    table = [list(HEADINGS), *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def markdown(report: Mapping[str, Any]) -> str:
    """What stands in docs/speed.md between BEGIN and END, both included, for the content of a bench's JSON file."""
    machine = report["machine"]
    rows = [row_from_json(content) for content in report["rows"]]
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
        *(f"| {' | '.join(cells(row))} |" for row in rows),
    ]
    flags = f" ({', '.join(machine['flags'])})" if machine["flags"] else ""
    gpu = "" if machine["device"] == "cpu" else f", {machine['device']}"
    where = (
        f"{machine['cpu']}{flags}, {machine['cores']} cores, {machine['memory_gb']} GB{gpu}; load "
        f"{machine['load_before']} before; commit {machine['commit']}, torch {machine['versions']['torch']}, "
        f"transformers {machine['versions']['transformers']}; {report['minutes']} minutes."
    )
    parts = "" if report["complete"] else f" Not complete: without {', '.join(report['not_run'])}."
    spreads = (
        f"Spread: where the median lies with {CONFIDENCE:.0%} confidence; of fewer than 6 rounds the least and "
        "the greatest."
    )
    return "\n".join([BEGIN, "", f"{where}{parts} {spreads}", "", *lines, "", END])
