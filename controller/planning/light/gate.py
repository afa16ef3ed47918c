"""When the light is on: gate edges solved on the motion profile, and what forbids them.

An edge is wanted at a path length: the bead's end, moved by the recipe's ``gate_on_offset`` or
``gate_off_offset``. The profile says when the nozzle is there; the command goes out that much
earlier as the source takes to react, which may differ between on and off.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.config import Cell, Laser
from controller.errors import PlanError
from controller.model import TrackKind
from controller.planning.motion.profile import Profile
from controller.planning.path.motion_path import MovePath

# the firmware's limit is configured in unsigned 32 bit milliseconds (docs/protocol.md, 8)
FIRMWARE_LONGEST_EMISSION_S = 0xFFFFFFFF * 1e-3


@dataclass(frozen=True)
class Gates:
    """When and where each bead's light is on; (k,) float64 each."""

    s_on_mm: np.ndarray
    s_off_mm: np.ndarray
    on_s: np.ndarray  # light at the workpiece
    off_s: np.ndarray
    on_command_s: np.ndarray  # gate output of the motion controller
    off_command_s: np.ndarray


def off_latency_s(laser: Laser) -> float:
    """From the gate's closing to darkness."""
    own = laser.gate_off_latency_s
    return laser.gate_latency_s if own is None else own


def bead_name(path: MovePath, bead: int) -> str:
    """A bead for people: its number, kind and layer."""
    row = path.beads[bead]
    kind = TrackKind(int(row["kind"])).name.lower()
    return f"bead {bead} ({kind}, layer {int(row['layer'])})"


def _first(bad: np.ndarray) -> int:
    return int(np.argmax(bad))


def solve_gates(path: MovePath, profile: Profile, laser: Laser) -> Gates:
    """Gate edges from the beads' ends on the profile.

    Raises PlanError if one is impossible: no length left between the offsets, a window shorter
    than the source's reaction, an edge before the job, axes standing with the gate open.
    """
    beads = path.beads
    on_mm, off_mm = beads["gate_on_offset_mm"], beads["gate_off_offset_mm"]
    s_on = profile.move_s_mm[beads["first_move"]] + on_mm
    s_off = profile.move_s_mm[beads["end_move"]] + off_mm
    length = s_off - s_on
    if (length <= 0.0).any():
        i = _first(length <= 0.0)
        raise PlanError(
            f"{bead_name(path, i)}: gate_on_offset {on_mm[i]:g} mm and gate_off_offset "
            f"{off_mm[i]:g} mm leave {length[i]:.4g} mm of {length[i] - off_mm[i] + on_mm[i]:.4g} "
            "mm, must leave more than 0 mm"
        )
    on, off = profile.time_at(s_on), profile.time_at(s_off)
    gates = Gates(s_on, s_off, on, off, on - laser.gate_latency_s, off - off_latency_s(laser))
    _check_windows(path, gates, laser)
    _check_moving(path, profile, gates)
    return gates


def _check_windows(path: MovePath, gates: Gates, laser: Laser) -> None:
    """Open and shut commands last longer than the source takes to follow them."""
    jitter = laser.gate_jitter_s
    opened = gates.off_command_s - gates.on_command_s
    least = laser.gate_latency_s + jitter
    short = (opened < least) | (opened <= 0.0)
    if short.any():
        i = _first(short)
        raise PlanError(
            f"{bead_name(path, i)}: the gate would be open for {opened[i] * 1e3:.3f} ms, the "
            f"source needs {least * 1e3:.3f} ms to follow (laser.gate_latency, laser.gate_jitter)"
        )
    before = np.concatenate([[0.0], gates.off_command_s[:-1]])
    shut = gates.on_command_s - before
    least = off_latency_s(laser) + jitter
    short = (shut < least) | (shut <= 0.0)
    short[0] = shut[0] <= 0.0  # nothing burns before the first
    if short.any():
        i = _first(short)
        raise PlanError(
            f"{bead_name(path, i)}: the gate would be shut for {shut[i] * 1e3:.3f} ms before it, "
            f"the source needs {least * 1e3:.3f} ms to go dark (laser.gate_off_latency, "
            "laser.gate_jitter)"
        )


def _check_moving(path: MovePath, profile: Profile, gates: Gates) -> None:
    """No instant of an open gate with the axes at rest: edges, and every kink between them."""
    t = np.concatenate([gates.on_command_s, gates.off_command_s, profile.t_s])
    v = np.concatenate(
        [
            profile.state_at(gates.on_command_s)[1],
            profile.state_at(gates.off_command_s)[1],
            profile.v_mm_s,
        ]
    )
    bead = np.searchsorted(gates.on_command_s, t, side="right") - 1
    still = (bead >= 0) & (t <= gates.off_command_s[np.maximum(bead, 0)]) & (v <= 0.0)
    if still.any():
        i = _first(still)
        raise PlanError(
            f"{bead_name(path, int(bead[i]))}: the gate would be open at {t[i]:.6f} s with the "
            "axes standing (0 mm/s)"
        )


def longest_emission_s(gates: Gates) -> float:
    """Longest unbroken emission, of light or of the command, whichever is longer."""
    light, told = gates.off_s - gates.on_s, gates.off_command_s - gates.on_command_s
    return float(np.maximum(light, told).max())


def longest_dark_s(gates: Gates) -> float:
    """Longest time without light before an emission, from the job's start on."""
    return float((gates.on_s - np.concatenate([[0.0], gates.off_s[:-1]])).max())


def check_light(path: MovePath, gates: Gates, cell: Cell, least_override: float) -> list[str]:
    """Longest emission and longest pause against source and firmware.

    Raises PlanError when the plan itself breaks a limit; returns warnings, as when a speed
    override that the recipe allows would.
    """
    laser, notes = cell.laser, []
    lit = np.maximum(gates.off_s - gates.on_s, gates.off_command_s - gates.on_command_s)
    i = int(np.argmax(lit))
    longest = float(lit[i])
    for limit, name in (
        (laser.longest_emission_s, f"laser.longest_emission of cell {cell.name!r}"),
        (FIRMWARE_LONGEST_EMISSION_S, "the firmware's counter"),
    ):
        if longest >= limit:  # the firmware shuts the gate exactly at its limit
            raise PlanError(
                f"{bead_name(path, i)}: {longest:.1f} s of unbroken emission, not below "
                f"{limit:g} s ({name})"
            )
    if 0.0 < least_override < 1.0 and longest / least_override >= laser.longest_emission_s:
        notes.append(
            f"{bead_name(path, i)}: {longest:.1f} s of unbroken emission reach "
            f"laser.longest_emission {laser.longest_emission_s:g} s at a speed override of "
            f"{longest / laser.longest_emission_s:.3f}, above the least {least_override:g} of "
            "window.override"
        )
    if laser.beam_timeout_s is not None:
        dark = gates.on_s - np.concatenate([[0.0], gates.off_s[:-1]])
        i = int(np.argmax(dark))
        if dark[i] > laser.beam_timeout_s:
            raise PlanError(
                f"{_pause_name(path, i)}: {dark[i]:.2f} s without light, above "
                f"{laser.beam_timeout_s:g} s (laser.beam_timeout of cell {cell.name!r}): the "
                "source would leave its ready state"
            )
    return notes


def _pause_name(path: MovePath, bead: int) -> str:
    """The travel that leads to a bead."""
    to = ", ".join(f"{x:.2f}" for x in path.points_mm[path.beads["first_move"][bead]])
    if bead == 0:
        return f"way from home to {bead_name(path, 0)} at ({to}) mm"
    start = path.points_mm[path.beads["end_move"][bead - 1]]
    there = ", ".join(f"{x:.2f}" for x in start)
    return f"travel from ({there}) mm to {bead_name(path, bead)} at ({to}) mm"


def light_figures(gates: Gates) -> dict[str, Any]:
    """Emission times for the plan's figures, s."""
    return {
        "emission_s": float((gates.off_s - gates.on_s).sum()),
        "longest_emission_s": float((gates.off_s - gates.on_s).max()),
    }
