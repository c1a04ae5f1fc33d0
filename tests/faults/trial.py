"""A trial: a crowd talks, something goes wrong, and afterwards every message is accounted for."""

from __future__ import annotations

import asyncio
import json
from asyncio import FIRST_COMPLETED
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.checker import check
from tests.faults.crowd import Size
from tests.faults.world import World

RESULTS = Path(__file__).parent / "results"
BEFORE_S = AFTER_S = 1.5
SETTLE_S = 60.0

Act = Callable[[World], Awaitable[None]]
"""Does something to the world, undoes it as an operator or a supervisor would, and says when it is `over`."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        within_s: how soon after it is over everybody must have heard something new from everywhere.
        announces: whether a client may be told of a loss; nobody may miss anything without being told in any case.
        nodes: the sizes of NATS cluster that it can happen to.
        quick: the sizes that CI runs it with.
        repeatable: the world is as it was afterwards, so that it can happen again and again.
    """

    name: str
    act: Act
    within_s: float = 15.0
    announces: bool = False
    nodes: tuple[int, ...] = (1, 3)
    repeatable: bool = True
    quick: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.name.replace(" ", "_")


@dataclass
class Row:
    """One line of the table: what a trial counted. `recovery_s` is from the fault's end."""

    fault: str
    nodes: int
    acked: int
    live: int
    replayed: int
    announced: int
    lost: int
    doubled: int
    disordered: int
    leaked: int
    recovery_s: float
    remarks: str = ""


async def attempt(world: World, fault: Fault, size: Size | None = None) -> Row:
    """Carry out a trial and return its row; raises AssertionError when a promise is broken."""
    async with world.peopled(size or Size()) as crowd:
        async with crowd.talking():
            await asyncio.sleep(BEFORE_S)
            acting = asyncio.ensure_future(fault.act(world))
            await asyncio.wait({acting, asyncio.ensure_future(world.over.wait())}, return_when=FIRST_COMPLETED)
            recovery_s = await crowd.recovered(within_s=fault.within_s)
            await acting
            await asyncio.sleep(AFTER_S)
        await crowd.settled(within_s=SETTLE_S)
    return conclude(world, fault.name, recovery_s, announces=fault.announces)


def conclude(world: World, name: str, recovery_s: float, *, announces: bool = False, remarks: str = "") -> Row:
    """Check what was recorded, add its row to the table, and hold it to the promises."""
    verdict = check(world.recorder.records)
    counts = {key: value for key, value in asdict(verdict).items() if key != "examples"}
    row = Row(name, len(world.nodes), **counts, recovery_s=round(recovery_s, 1), remarks=remarks)
    add_to_table(row)
    if not verdict.clean or (verdict.announced and not announces):
        world.recorder.write(RESULTS / f"{name.replace(' ', '_')}.jsonl")
    print(f"\n{heading()}\n{line(row)}")
    assert verdict.clean, "\n".join(verdict.examples)
    assert announces or not verdict.announced, f"{verdict.announced} messages were announced as lost: none had to be"
    assert verdict.acked, "nothing was said"
    return row


# -- the table --------------------------------------------------------------------------------------------------------

COLUMNS = {
    "fault": "fault",
    "nodes": "NATS nodes",
    "acked": "acked",
    "live": "delivered live",
    "replayed": "replayed",
    "announced": "announced lost",
    "lost": "lost in silence",
    "doubled": "doubled",
    "disordered": "out of order",
    "leaked": "leaked",
    "recovery_s": "recovery, s",
    "remarks": "",
}


def add_to_table(row: Row) -> None:
    """Put a row into the results, in the place of an earlier one of the same trial; as JSON, and as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "faults.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    rows = [other for other in rows if (other["fault"], other["nodes"]) != (row.fault, row.nodes)] + [asdict(row)]
    file.write_text(json.dumps(rows, indent=1) + "\n")
    lines = [line(Row(**each)) for each in sorted(rows, key=lambda each: each["nodes"])]
    (RESULTS / "faults.md").write_text("\n".join([heading(), *lines]) + "\n")


def heading() -> str:
    """Return the head of the table in Markdown."""
    return f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}"


def line(row: Row) -> str:
    """Return a row of it."""
    return "| " + " | ".join(str(getattr(row, column)) for column in COLUMNS) + " |"
