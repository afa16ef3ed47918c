"""Jobs to programs for machines that keep their own control.

``program_of(plan, "linuxcnc")`` gives lines that know the segment, track and layer they stand
for. One module a dialect, and for each a template of what comes before and after the moves.
"""

from controller.export.dialects import DIALECTS, program_of
from controller.export.program import Note, Program, write_program

__all__ = ["DIALECTS", "Note", "Program", "program_of", "write_program"]
