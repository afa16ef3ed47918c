"""Preflight: every reason why START is refused, by name. Empty means go."""

import shutil
from pathlib import Path

from controller.config import Cell
from controller.errors import RecipeError
from controller.machine.interlocks import Limits, emission_blockers
from controller.machine.job import Job
from controller.machine.snapshot import Blocker, MachineSnapshot
from controller.machine.states import UnitMode
from controller.recipes import check_recipe
from firmware_bridge.link_types import Abilities, Link

RECORD_BYTES_PER_S = 70_000  # record and trace together, measured
RECORD_BYTES = 20_000_000  # job, reports, reserve
AT_START_STEPS = 0  # the first segment counts from the plan's start position
AT_START = 0.01  # mm or degrees, where positions are told rounded and programs are absolute


def preflight(
    snap: MachineSnapshot,
    lim: Limits,
    cell: Cell,
    cell_hash: str,
    job: Job | None,
    mode: UnitMode,
    abilities: Abilities,
    *,
    link_ready: bool,
    free_bytes: int | None,
    present_alarms: tuple[str, ...] = (),
) -> tuple[Blocker, ...]:
    """Reasons against a start.

    ``link_ready``: handshake done and configuration hash equal on both sides.
    ``free_bytes``: room where the record goes, None when no record was asked for.
    """
    found: list[Blocker] = []

    def no(name: str, text: str) -> None:
        found.append(Blocker(name, text))

    if not link_ready:
        no("MOTION_CONFIG", "the motion controller has not confirmed this cell's configuration")
    if not abilities.dead_man and not cell.motion.gate_watchdog:
        no(
            "GATE_WATCHDOG",
            f"no emission over link {cell.motion.link!r}: nothing shuts the gate when this side "
            "dies, and the cell file names no watchdog outside of the controller "
            "(motion.gate_watchdog)",
        )
    found.extend(emission_blockers(snap, lim))
    for name in present_alarms:
        no("ALARM", f"alarm {name} is present")
    test = job is not None and job.plan.meta.get("purpose") == "emission test"
    if mode is UnitMode.MAINTENANCE and not test:
        no("MODE", "the unit mode is maintenance: it runs emission tests only")
    if job is None:
        no("NO_JOB", "no job is loaded")
    else:
        _job(found, snap, cell, cell_hash, job, mode, exact=abilities.exact_position)
        if free_bytes is not None:
            need = RECORD_BYTES + round(RECORD_BYTES_PER_S * job.duration_s)
            if free_bytes < need:
                no(
                    "NO_ROOM",
                    f"{free_bytes / 1e6:.0f} MB free for the record, {need / 1e6:.0f} MB needed",
                )
    return tuple(found)


def _job(
    found: list[Blocker],
    snap: MachineSnapshot,
    cell: Cell,
    cell_hash: str,
    job: Job,
    mode: UnitMode,
    *,
    exact: bool,
) -> None:
    """What speaks against this job on this cell."""

    def no(name: str, text: str) -> None:
        found.append(Blocker(name, text))

    if job.cell_hash != cell_hash:
        no("OTHER_CELL", f"the job was planned for another cell file than that of {cell.name!r}")
    if mode is UnitMode.PRODUCTION and not job.recipe.approved:
        no("RECIPE_NOT_APPROVED", f"recipe {job.recipe.name!r} is not approved for production")
    try:
        check_recipe(job.recipe, cell, f"recipe {job.recipe.name!r}",
                     strict=mode is UnitMode.PRODUCTION)  # fmt: skip
    except RecipeError as exc:
        no("RECIPE", str(exc))
    if job.peak_power_w > cell.laser.rated_power_w:
        no(
            "POWER",
            f"the plan asks for {job.peak_power_w:.0f} W, the laser is rated "
            f"{cell.laser.rated_power_w:g} W",
        )
    axes = cell.motion.machine_axes
    for axis, low, high in zip(axes, job.low, job.high, strict=True):
        least, most = axis.least, axis.most
        if low < least - 1e-6 or high > most + 1e-6:
            no(
                "AXIS_RANGE",
                f"the plan moves {axis.name} from {low:.2f} to {high:.2f} {axis.unit}, the axis "
                f"goes from {least:g} to {most:g} {axis.unit}",
            )
    if snap.motion is not None and snap.motion.homed:
        n = len(axes)
        here = snap.motion.position_steps[:n]
        start = tuple(int(v) for v in job.plan.start_steps[:n])
        near = [AT_START_STEPS if exact else AT_START * a.steps_per_unit for a in axes]
        if any(abs(a - b) > n for a, b, n in zip(here, start, near, strict=True)):
            no("NOT_AT_START", f"the axes stand at {here} steps, the plan starts at {start}: home")
    _powder(found, snap, cell, job)


def link_limits(cell: Cell, link: Link) -> tuple[Blocker, ...]:
    """What the cell's motion link cannot give, by name: no reasons against a start."""
    kind = cell.motion.link
    return tuple(Blocker(name.upper(), f"{kind}: {text}") for name, text in link.lacks.items())


def _powder(found: list[Blocker], snap: MachineSnapshot, cell: Cell, job: Job) -> None:
    """Hoppers: the right alloy, and enough of it."""
    for n, need in enumerate(job.powder_g):
        if need <= 0.0:
            continue
        if n >= len(cell.powder.hoppers):
            found.append(Blocker("HOPPER", f"the plan feeds hopper {n + 1}, the cell lacks it"))
            continue
        holds = cell.powder.hoppers[n].powder
        if holds not in job.recipe.powders:
            found.append(
                Blocker(
                    "POWDER_MATERIAL",
                    f"hopper {n + 1} holds {holds}, the recipe is for "
                    f"{' and '.join(job.recipe.powders)}",
                )
            )
        if snap.powder is not None and snap.powder.mass_left_g[n] < need:
            found.append(
                Blocker(
                    "POWDER_MASS",
                    f"hopper {n + 1} holds {snap.powder.mass_left_g[n]:.0f} g, the plan needs "
                    f"{need:.0f} g",
                )
            )


def free_bytes(folder: Path) -> int:
    """Room where a folder is or will be made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
