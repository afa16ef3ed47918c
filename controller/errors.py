"""Every error the controller raises on purpose.

LmdError                      exit code 2 unless said otherwise
├── ConfigError               a cell, material, scenario or map file is wrong
├── RecipeError               a recipe is wrong, or does not fit the cell or the part
├── GeometryError             a part cannot be read, repaired, placed or sliced
├── PlanError                 the plan would break a limit
├── PreflightError            START refused: the reasons are named (exit code 3)
├── Unfinished                a build ended otherwise than COMPLETE (exit code 3)
├── StateError                a command that the machine's state does not allow
├── CommissioningError        readings or a calibration do not hold
├── RecordError               a build record cannot be written or read
│   └── VerifyError           a record or job is not what was sealed (exit code 4)
└── ApiError                  the cell server refused or is not there (exit code 1)

The bridge has a tree of its own: ``firmware_bridge.errors``.
A message is one sentence that names file, key, value, limit and unit.
"""

from typing import Any


class LmdError(Exception):
    """Base of all errors that are told to the user as one sentence."""

    exit_code = 2


class ConfigError(LmdError):
    """A cell, material, scenario or map file is wrong."""


class RecipeError(LmdError):
    """A recipe is wrong, or does not fit the cell or the part."""


class GeometryError(LmdError):
    """A part cannot be read, repaired, placed or sliced."""


class PlanError(LmdError):
    """The plan would break a limit."""


class PreflightError(LmdError):
    """START refused; ``reasons`` are the blockers by name."""

    exit_code = 3

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("start refused: " + "; ".join(reasons))
        self.reasons = reasons


class Unfinished(LmdError):
    """A build that ended otherwise than COMPLETE."""

    exit_code = 3

    def __init__(self, state: str, alarms: list[dict[str, Any]]) -> None:
        why = f": {alarms[0]['name']}, {alarms[0]['text']}" if alarms else ""
        super().__init__(f"the build ended {state}{why}".rstrip("."))


class StateError(LmdError):
    """A command that the machine's present state does not allow."""


class CommissioningError(LmdError):
    """Readings give no certain value, or a calibration file does not hold."""


class RecordError(LmdError):
    """A build record cannot be written or read."""


class VerifyError(RecordError):
    """A record or a job is not what was sealed."""

    exit_code = 4


class ApiError(LmdError):
    """The cell server refused the call or is not there."""

    exit_code = 1
