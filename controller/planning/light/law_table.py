"""Power laws and energy caps as the motion controller takes them (docs/protocol.md section 6).

Up to three laws are set by number before a build; a PARAM record says which one holds for the
beads that follow, and their cap. So a plan stays true to its law when its time is scaled.
"""

from collections.abc import Sequence

import numpy as np

from firmware_bridge.segments import POWER_FULL

MOST_LAWS = 3
MOST_CAP = 1_048_575  # 1/65535 of full power; above it a cap binds nowhere
KEY = "power_exponents"  # of a plan's meta: exponents of laws 1, 2, 3


def exponents_of(beads: np.ndarray) -> tuple[float, ...]:
    """Exponents other than 1 in a plan's beads (BEAD_ROW); none when there are too many."""
    found = np.unique(beads["power_exponent"])
    found = found[found != 1.0]
    return tuple(found.tolist()) if len(found) <= MOST_LAWS else ()


def param_words(
    beads: np.ndarray, exponents: Sequence[float], rated_power_w: float
) -> tuple[np.ndarray, np.ndarray]:
    """Law number and cap of each bead, (k,) int64: 0 linear, 0 none."""
    law = np.zeros(len(beads), dtype=np.int64)
    for number, exponent in enumerate(exponents, start=1):
        law[beads["power_exponent"] == exponent] = number
    at_nominal_w = beads["energy_cap_j_mm"] * beads["speed_mm_s"]
    cap = np.rint(np.minimum(at_nominal_w / rated_power_w * POWER_FULL, MOST_CAP + 1.0))
    cap = np.where(cap > MOST_CAP, 0.0, cap)
    return law, cap.astype(np.int64)


def write_words(rows: np.ndarray, law: np.ndarray, cap: np.ndarray) -> None:
    """Law and cap into PARAM rows, in place: u16 and u32 in place of the first three steps."""
    words = np.column_stack([law, cap & 0xFFFF, cap >> 16]).astype(np.uint16)
    rows["steps"][:, :3] = words.view(np.int16)


def points_of(exponent: float) -> list[tuple[float, float]]:
    """The table of ``g(r) = r ** exponent``: two points, exact everywhere."""
    return [(0.5, 0.5**exponent), (1.0, 1.0)]
