"""The dialects there are, by name."""

import math

from controller.errors import ConfigError
from controller.export.abb import Abb
from controller.export.base import Dialect, Wish
from controller.export.blocks import source_of
from controller.export.fanuc import Fanuc
from controller.export.grblhal import GrblHal
from controller.export.kuka import Kuka
from controller.export.linuxcnc import LinuxCnc
from controller.export.program import Program
from controller.export.siemens840d import Siemens840D
from controller.model import BuildPlan

_CLASSES: tuple[type[Dialect], ...] = (LinuxCnc, GrblHal, Siemens840D, Fanuc, Abb, Kuka)
DIALECTS: dict[str, type[Dialect]] = {d.name: d for d in _CLASSES}


def program_of(
    plan: BuildPlan,
    dialect: str,
    *,
    comments: bool = True,
    handshake: bool | None = None,
    powder: bool | None = None,
    s_max: float = 1000.0,
) -> Program:
    """A plan as a program; lines know segment, track and layer.

    Parameters
    ----------
    dialect : a key of DIALECTS
    comments : header, layer and track marks as comments; False: commands only (for streaming)
    handshake : call the integrator's routine at each layer's start; None: if the cell's link is
        ``supervised``
    powder : command powder and gas, where the dialect can; None: unless the cell's link is
        ``supervised`` (the cell server commands them then)
    s_max : grblHAL's $30, S at rated power

    Raises ConfigError for an unknown dialect or a useless ``s_max``, PlanError for what the
    dialect cannot hold.
    """
    if dialect not in DIALECTS:
        raise ConfigError(f"dialect {dialect!r} is not known; there are: {', '.join(DIALECTS)}")
    if not (math.isfinite(s_max) and 0.0 < s_max <= 1e6):
        raise ConfigError(f"s_max {s_max:g}: must be above 0 and at most 1000000")
    source = source_of(plan, dialect)
    supervised = source.cell.motion.link == "supervised"
    wish = Wish(
        comments=comments,
        handshake=supervised if handshake is None else handshake,
        powder=not supervised if powder is None else powder,
        s_max=s_max,
    )
    return DIALECTS[dialect](source, wish).program()
