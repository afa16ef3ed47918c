"""The ``lmd`` command: parses words, calls one function, prints, and gives an exit code.

0 success, 1 internal error, 2 bad input (one sentence on stderr), 3 a build that ended
otherwise than COMPLETE, 4 verification failed, 130 interrupted. Imports are late: a word
wrong in the command line is told in a tenth of a second.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from controller import __version__
from controller.errors import LmdError

app = typer.Typer(
    name="lmd",
    help="Laser metal deposition: CAD file to sealed build record.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
CellName = Annotated[str, typer.Option("--cell", help="Cell: name or path.")]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="Recipe: name or path.")]
Units = Annotated[
    str | None, typer.Option("--units", help="What a mesh's numbers are: mm, inch or m.")
]
Scale = Annotated[float, typer.Option("--scale", help="Scale factor.")]
Rotate = Annotated[
    str | None, typer.Option("--rotate", help="Turn about X, Y, Z in degrees: 90,0,0.")
]
PartFile = Annotated[Path, typer.Argument(help="STL, 3MF or STEP file.")]


def _rotation(text: str | None) -> tuple[float, float, float]:
    if text is None:
        return (0.0, 0.0, 0.0)
    try:
        x, y, z = (float(v) for v in text.split(","))
    except ValueError:
        raise LmdError(f"--rotate {text}: must be three angles in degrees, as 90,0,0") from None
    return (x, y, z)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"lmd {__version__}")
        raise typer.Exit


@app.command()
def run(
    part: PartFile,
    recipe: RecipeName = None,
    cell: CellName = "sim",
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the record's folder.")] = (
        Path("records")
    ),
    time: Annotated[
        str | None, typer.Option("--time", help="real, virtual or null; default virtual.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Faults to inject: name or path.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that varies.")] = 1,
    mode: Annotated[
        str, typer.Option("--mode", help="production, development or maintenance.")
    ] = "development",
    units: Units = None,
    scale: Scale = 1.0,
    rotate: Rotate = None,
    json: Json = False,
) -> None:
    """The main job: import, slice, plan, preflight, deposit, record, report."""
    from controller.build import Wish, build_part
    from controller.check import refuse_gcode
    from controller.terminal import print_build, print_json, progress

    refuse_gcode(part)
    wish = Wish(
        part=part,
        recipe=recipe,
        cell=cell,
        out=out,
        time_mode=time,
        scenario=scenario,
        seed=seed,
        mode=mode,
        units=units,
        scale=scale,
        rotate_deg=_rotation(rotate),
    )
    with progress(not json) as tell:
        result = build_part(wish, tell)
    if json:
        print_json(result)
    else:
        print_build(result)
    if not result["sealed"]:
        raise typer.Exit(4)
    if result["state"] != "COMPLETE":
        raise typer.Exit(3)


@app.command()
def plan(
    part: PartFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="Job file to write, *.lmdjob.")],
    recipe: RecipeName = None,
    cell: CellName = "sim",
    units: Units = None,
    scale: Scale = 1.0,
    rotate: Rotate = None,
    json: Json = False,
) -> None:
    """Plan only: CAD file to job file."""
    from controller.check import refuse_gcode
    from controller.planning import write_job
    from controller.session import prepare_plan
    from controller.terminal import print_json, print_table, progress

    refuse_gcode(part)
    if out.suffix != ".lmdjob":
        raise LmdError(f"-o {out}: a job file's name ends in .lmdjob")
    if not out.absolute().parent.is_dir():
        raise LmdError(f"-o {out}: folder {out.parent} does not exist")
    with progress(not json) as tell:
        made = prepare_plan(
            part, recipe, cell, units=units, scale=scale, rotate=_rotation(rotate), progress=tell
        )
        write_job(made, out)
    if json:
        print_json({"part": made.part, **made.figures, "warnings": list(made.warnings)})
        return
    rows = [[key, value] for key, value in made.figures.items() if isinstance(value, int | float)]
    print_table(f"{made.part['name']}: plan", ["figure", "value"], rows)
    for note in (*made.part.get("notes", ()), *made.warnings):
        print(f"note: {note}")
    print(f"hash: {made.figures['hash']}")
    print(f"job: {out}")


@app.command()
def show(
    job: Annotated[Path, typer.Argument(help="Job file, *.lmdjob.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write, *.png.")],
    colour: Annotated[
        str, typer.Option("--colour", help="By power, speed, time or layer.")
    ] = "power",
    layer: Annotated[
        int | None, typer.Option("--layer", help="One layer, seen from above.")
    ] = None,
    json: Json = False,
) -> None:
    """Picture of a job."""
    from controller.planning.job import read_job
    from controller.record.pictures import show_job
    from controller.terminal import print_json

    path = show_job(read_job(job), out, colour, layer)
    if json:
        print_json({"picture": str(path)})
    else:
        print(path)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(help="Cells, materials, recipes, scenarios, jobs.")
    ],
    cell: CellName = "sim",
    json: Json = False,
) -> None:
    """Validate files; every mistake with file, line and key."""
    from controller.check import check_files
    from controller.terminal import print_json

    found, mistakes = check_files(files, cell)
    if json:
        print_json({"ok": not mistakes, "files": found})
    else:
        for item in found:
            if item["ok"]:
                print(f"{item['file']}: {item['kind']}, in order")
                for warning in item.get("warnings", ()):
                    print(f"  warning: {warning}")
    if mistakes:
        raise LmdError("; ".join(mistakes))


@app.command()
def doctor(
    make_key: Annotated[
        bool, typer.Option("--make-key", help="Make the key that signs records.")
    ] = False,
    json: Json = False,
) -> None:
    """Check the installation: what is missing, and the command that mends it."""
    from controller import doctor as examination
    from controller.record import keys
    from controller.terminal import print_json

    if make_key:
        keys.make_key()
    checks = examination.examine()
    answer = examination.as_json(checks)
    if json:
        print_json(answer)
    else:
        for c in checks:
            mark = "ok " if c.ok else ("BAD" if c.required else "-  ")
            print(f"{mark}  {c.name}: {c.found}" + (f"  ->  {c.fix}" if c.fix else ""))
    if not answer["ok"]:
        raise typer.Exit(1)


def _add_groups() -> None:
    """The verbs that have files of their own."""
    from controller.cli_cell import devices, serve, sim
    from controller.cli_record import record

    app.command()(serve)
    app.command()(sim)
    app.add_typer(devices, name="devices")
    app.add_typer(record, name="record")


_add_groups()


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    from firmware_bridge.errors import BridgeError

    json_wanted = "--json" in words
    try:
        answer: Any = app(words, standalone_mode=False)
        return int(answer) if isinstance(answer, int) else 0
    except typer.Exit as exc:
        return int(exc.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130, json_wanted)
    except LmdError as exc:
        return _fail(str(exc), exc.exit_code, json_wanted)
    except BridgeError as exc:
        return _fail(str(exc), 2, json_wanted)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as exc:
        # a wrong word: typer carries its own copy of click, so the class is told by its method
        usage = getattr(exc, "format_message", None)
        if usage is not None:
            return _fail(str(usage()), 2, json_wanted)
        if os.environ.get("LMD_DEBUG"):
            raise
        words_of = f"internal error: {type(exc).__name__}: {exc} (LMD_DEBUG=1 shows where)"
        return _fail(words_of, 1, json_wanted)


def _fail(message: str, code: int, json_wanted: bool) -> int:
    """One sentence on stderr; with --json also an object on stdout."""
    sentence = " ".join(message.split())
    print(f"error: {sentence}", file=sys.stderr)
    if json_wanted:
        import json

        print(json.dumps({"error": sentence, "exit_code": code}))
    return code
