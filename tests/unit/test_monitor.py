"""Signals that only a series of readings shows: is measured power short of the command?"""

from types import SimpleNamespace

import pytest

from controller.machine.monitor import POWER_WINDOW, Monitor
from tests.unit.machine_fakes import status

RATED_W = 1000.0


def monitor_after(shares):
    """A monitor that has seen the gate open with these shares of rated power."""
    monitor = Monitor(RATED_W, lambda steps: (0.0, 0.0, 0.0))
    for n, share in enumerate(shares):
        monitor.status(status(device_us=n * 10_000, gate_on=True, power_fraction=share))
    return monitor


@pytest.mark.parametrize(
    ("measured_w", "short"), [(700.0, False), (640.0, False), (620.0, True), (0.0, True)]
)
def test_steady_power_is_judged_by_its_command(measured_w, short):
    monitor = monitor_after([0.7] * POWER_WINDOW)
    monitor.laser(SimpleNamespace(at_us=1, power_measured_w=measured_w))
    assert monitor.power_short is short


@pytest.mark.parametrize(("measured_w", "short"), [(850.0, False), (500.0, None), (150.0, True)])
def test_on_a_ramp_what_lies_between_proves_nothing(measured_w, short):
    ramp = [0.2 + 0.7 * n / (POWER_WINDOW - 1) for n in range(POWER_WINDOW)]
    monitor = monitor_after(ramp)
    monitor.laser(SimpleNamespace(at_us=1, power_measured_w=measured_w))
    assert monitor.power_short is short
