"""A jump of the date is told once with its size; slewing and the passing of time are not."""

import pytest

from controller.machine.clock_watch import LOOK_TICKS, ClockWatch


class Clocks:
    date_s, mono_s = 1e9, 50.0


def watched():
    clocks, told = Clocks(), []
    watch = ClockWatch(
        lambda: clocks.date_s, lambda: clocks.mono_s, lambda kind, data: told.append((kind, data))
    )
    return clocks, told, watch


def seconds(clocks, watch, n, slew=0.0):
    for _ in range(n):
        clocks.date_s += 1.0 + slew
        clocks.mono_s += 1.0
        for _ in range(LOOK_TICKS):
            watch.tick()


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, -0.6])
def test_a_jump_is_told_once(jump_s):
    clocks, told, watch = watched()
    seconds(clocks, watch, 5)
    clocks.date_s += jump_s
    seconds(clocks, watch, 5)
    assert told == [("clock_jump", {"seconds": pytest.approx(jump_s, abs=1e-3)})]


def test_slewing_is_no_jump():
    clocks, told, watch = watched()
    seconds(clocks, watch, 1000, slew=0.01)
    assert told == []
