"""A fixed sample of the fault campaign: 300 faults in ten runs of cells, two of them on wires."""

import pytest

from benchmarks import fault_campaign
from benchmarks.fault_campaign import Tally

pytestmark = [pytest.mark.hil, pytest.mark.slow]

FAULTS, RUNS, SEED = 300, 10, 20261
ON_WIRES = {3}


def batches():
    """The sample, cut so that several workers share it; every kind of fault is in it."""
    whole = fault_campaign.cells(FAULTS + 200, SEED)
    plain = [pair for _, full, todo in whole if not full for pair in todo]
    more = [pair for _, full, todo in whole if full for pair in todo]
    found = [(SEED, False, plain[k * 30 : k * 30 + 30]) for k in range(RUNS - 1)]
    found.append((SEED, True, more[:30]))
    return found


@pytest.mark.parametrize("number", range(RUNS))
def test_every_reaction_is_right_and_in_time(number, tmp_path):
    batch = batches()[number]
    tally = Tally()
    fault_campaign.one_cell(tmp_path, batch, number, number in ON_WIRES, tally)
    assert tally.problems == []
    assert tally.n == len(batch[2]) == 30
    assert tally.on_wires == (30 if number in ON_WIRES else 0)
    assert tally.records == 3  # every tenth has a record, which verifies


def test_the_sample_has_300_faults_of_most_kinds_in_every_phase():
    pairs = [pair for _, _, todo in batches() for pair in todo]
    assert len(pairs) == FAULTS
    assert len({phase for _, phase in pairs}) == 6
    assert len({row.key for row, _ in pairs}) > 60
