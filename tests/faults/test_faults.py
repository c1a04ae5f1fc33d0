"""Each fault, under load: nothing lost in silence, doubled, out of order or leaked, and service is back in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.faults import FAULTS
from tests.faults.trial import Fault, attempt
from tests.faults.world import open_world

TRIALS = [
    pytest.param(fault, nodes, id=f"{fault}-{nodes}", marks=[pytest.mark.quick] if nodes in fault.quick else [])
    for nodes in (1, 3)
    for fault in FAULTS
    if nodes in fault.nodes
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("fault", "nodes"), TRIALS)
async def test_no_message_is_lost_in_silence_doubled_disordered_or_leaked(
    fault: Fault, nodes: int, tmp_path: Path
) -> None:
    async with open_world(tmp_path, nodes=nodes) as world:
        row = await attempt(world, fault)

    assert (row.lost, row.doubled, row.disordered, row.leaked) == (0, 0, 0, 0)
