"""``lmd export``: programs for machines with their own control."""

from pathlib import Path
from typing import Annotated

import typer

from controller import words
from controller.errors import ConfigError


def export(
    job: Annotated[Path, typer.Argument(help="Job file, *.lmdjob.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Program file to write.")],
    dialect: Annotated[
        str,
        typer.Option(
            "--dialect", help="linuxcnc, grblhal, siemens840d, fanuc, abb (RAPID) or kuka (KRL)."
        ),
    ],
    comments: Annotated[
        bool, typer.Option("--comments/--no-comments", help="Header, layer and track marks.")
    ] = True,
    handshake: Annotated[
        bool | None,
        typer.Option(
            "--handshake/--no-handshake",
            help="A call at each layer's start; default: where the cell's link is supervised.",
        ),
    ] = None,
    powder: Annotated[
        bool | None,
        typer.Option(
            "--powder/--no-powder",
            help="Powder and gas commands; default: unless the cell's link is supervised.",
        ),
    ] = None,
    s_max: Annotated[
        float, typer.Option("--s-max", help="grblhal: S at rated power, the controller's $30.")
    ] = 1000.0,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")
    ] = False,
) -> None:
    """Program for a machine with its own control."""
    words.job_file(job)
    if out.is_dir():
        raise ConfigError(f"-o {out}: is a folder, give the name of a file")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"-o {out}: folder {out.parent} does not exist")
    if out.suffix == job.suffix:
        raise ConfigError(f"-o {out}: is the name of a job, a program goes to another file")

    from controller.export import DIALECTS, program_of, write_program
    from controller.planning import read_job
    from controller.terminal import print_json

    words.one_of("--dialect", dialect, tuple(DIALECTS))
    if not 0.0 < s_max <= 1e6:
        raise ConfigError(f"--s-max {s_max:g}: must be above 0 and at most 1000000")
    made = program_of(read_job(job), dialect, comments=comments, handshake=handshake, s_max=s_max)
    write_program(made, out)
    notes = [{"name": note.name, "text": note.text} for note in made.notes]
    if json:
        print_json(
            {
                "program": str(out),
                "dialect": dialect,
                "name": made.name,
                "lines": len(made.lines),
                "warnings": notes,
            }
        )
        return
    print(f"{out}: {made.name}, {len(made.lines)} lines of {dialect}")
    for note in notes:
        print(f"  warning {note['name']}: {note['text']}")
