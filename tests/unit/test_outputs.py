"""Set values as commanded: what is remembered of them."""

import asyncio

from controller.machine.outputs import Outputs


def outputs_at(clock):
    """Outputs without devices on a clock that the test turns."""

    async def make():
        out = Outputs(None, lambda role, text: None)
        out._loop = clock
        return out

    return asyncio.run(make())


class Clock:
    """Stands where it is put."""

    now_s = 0.0

    def time(self):
        return self.now_s


def test_least_powder_of_late_is_the_least_that_was_told_within_that_time():
    clock = Clock()
    out = outputs_at(clock)
    for at_s, flows in ((1.0, (6.0, 0.0)), (5.0, (4.0, 2.0)), (5.1, (3.0, 3.0)), (6.0, (5.0, 1.5))):
        clock.now_s = at_s
        out.note_powder(flows)
    assert out.powder_least_g_min(4_900_000) == (3.0, 0.0)  # (6, 0) still held then
    assert out.powder_least_g_min(5_000_000) == (3.0, 1.5)
    assert out.powder_least_g_min(5_100_000) == (3.0, 1.5)
    assert out.powder_least_g_min(6_000_000) == (5.0, 1.5)
    assert out.powder_set_us == 6_000_000


def test_the_same_flows_again_are_no_change():
    clock = Clock()
    out = outputs_at(clock)
    clock.now_s = 1.0
    out.note_powder((6.0, 0.0))
    clock.now_s = 2.0
    out.note_powder((6.0, 0.0))
    assert out.powder_set_us == 1_000_000
    assert out.powder_least_g_min(1_500_000) == (6.0, 0.0)
