"""The ``lmd`` command: parses words, calls one function, prints, and gives an exit code.

0 success, 1 internal error, 2 bad input (one sentence on stderr), 3 a build that ended
otherwise than COMPLETE, 4 verification failed, 130 interrupted. Imports are late: a word
wrong in the command line is told in a tenth of a second.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from controller import __version__, words
from controller.errors import ConfigError, LmdError, Unfinished, VerifyError

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
    """Build a part: CAD file to sealed record and report.

    Imports, slices, plans, checks, deposits, records and reports. A simulated cell is
    started for it, in virtual time unless told otherwise.
    """
    turn = _part_words(part, units, scale, rotate)
    words.seed(seed)
    words.one_of("--mode", mode, words.UNIT_MODES)
    if time is not None:
        words.one_of("--time", time, words.TIME_MODES)

    from controller.build import Wish, build_part
    from controller.terminal import print_build, print_json, progress

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
        rotate_deg=turn,
    )
    with progress(not json) as tell:
        result = build_part(wish, tell)
    if json:
        print_json(result)
    else:
        print_build(result)
    if not result["sealed"]:
        raise VerifyError(f"{result['record']}: DAMAGED: {result['problems'][0]}")
    if result["state"] != "COMPLETE":
        raise Unfinished(result["state"], result["alarms"])


@app.command()
def plan(
    part: PartFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="Job file to write, *.lmdjob.")],
    recipe: RecipeName = None,
    cell: CellName = "sim",
    units: Units = None,
    scale: Scale = 1.0,
    rotate: Rotate = None,
    law: Annotated[
        str | None,
        typer.Option("--law", help="Time law: trapezoid, friction_circle or jerk; as the cell."),
    ] = None,
    json: Json = False,
) -> None:
    """Plan only: CAD file to job file."""
    turn = _part_words(part, units, scale, rotate)
    words.new_file("-o", out, ".lmdjob")
    if law is not None:
        words.one_of("--law", law, words.TIME_LAWS)

    from controller.planning import write_job
    from controller.session import prepare_plan
    from controller.terminal import print_json, print_plan, progress

    with progress(not json) as tell:
        made = prepare_plan(
            part, recipe, cell, units=units, scale=scale, rotate=turn, law=law, progress=tell
        )
        write_job(made, out)
    if json:
        print_json({"part": made.part, **made.figures, "warnings": list(made.warnings)})
    else:
        print_plan(made.part, made.figures, made.warnings, out)


@app.command()
def show(
    job: Annotated[Path, typer.Argument(help="Job file, *.lmdjob.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Picture to write, *.png.")],
    colour: Annotated[
        str, typer.Option("--colour", help="By power, speed, energy, time or layer.")
    ] = "power",
    layer: Annotated[
        int | None, typer.Option("--layer", help="One layer, seen from above.")
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Page on plan quality in place of the picture.")
    ] = False,
    track: Annotated[
        int | None, typer.Option("--track", help="With --quality: the track shown; 0 is first.")
    ] = None,
    json: Json = False,
) -> None:
    """Picture of a job."""
    words.job_file(job)
    words.new_file("-o", out, ".png")

    if track is not None and not quality:
        raise ConfigError(f"--track {track}: goes with --quality only")
    if quality and (layer is not None or colour != "power"):
        raise ConfigError("--quality: takes neither --layer nor --colour")

    from controller.planning.job import read_job
    from controller.record.pictures import show_job
    from controller.record.quality_page import show_quality
    from controller.terminal import print_json

    read = read_job(job)
    path = show_quality(read, out, track) if quality else show_job(read, out, colour, layer)
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
    """Validate files: cells, materials, recipes, scenarios, jobs."""
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
        worst = LmdError("; ".join(str(one) for one in mistakes))
        # a damaged job alone is a failed verification, anything else is bad input
        codes = {one.exit_code for one in mistakes}
        worst.exit_code = codes.pop() if len(codes) == 1 else 2
        raise worst


@app.command()
def doctor(
    make_key: Annotated[
        bool, typer.Option("--make-key", help="Make the key that signs records.")
    ] = False,
    json: Json = False,
) -> None:
    """Check the installation, name what mends it."""
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
        bad = ", ".join(c.name for c in checks if c.required and not c.ok)
        raise Missing(f"not in order: {bad}")


class Missing(LmdError):
    """The installation lacks something that it needs."""

    exit_code = 1


def _part_words(
    part: Path, units: str | None, scale: float, rotate: str | None
) -> tuple[float, float, float]:
    """Refuse at once what can be told without reading the part; the rotation in degrees."""
    words.part_file(part)
    words.scale(scale)
    if units is not None:
        words.one_of("--units", units, words.UNITS)
    return words.rotation(rotate)


def _add_groups() -> None:
    """The verbs that have files of their own."""
    from controller.cli_calibrate import calibrate, cell_app, maintenance
    from controller.cli_cell import devices, serve, sim
    from controller.cli_export import export
    from controller.cli_inject import inject
    from controller.cli_record import record, resume
    from controller.cli_supervise import approve, why

    app.command()(approve)
    app.command()(export)
    app.command()(inject)
    app.command()(resume)
    app.command()(serve)
    app.command()(sim)
    app.command()(why)
    app.command()(calibrate)
    app.command()(maintenance)
    app.add_typer(cell_app, name="cell")
    app.add_typer(devices, name="devices")
    app.add_typer(record, name="record")


_add_groups()


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays what it is
            signal.signal(number, _interrupt)
    code = _run(sys.argv[1:] if arguments is None else arguments)
    if code == 130:
        # CPython ends by the signal, whatever is asked for, when it hit code made by exec()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(number: int, frame: Any) -> None:
    """To be told to end is the same as to be interrupted from the keyboard."""
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    from controller.terminal import Said
    from firmware_bridge.errors import BridgeError

    Said.json = False
    json_wanted = "--json" in arguments
    try:
        answer: Any = app(arguments, prog_name="lmd", standalone_mode=False)
        sys.stdout.flush()
        code = int(answer) if isinstance(answer, int) else 0  # of a typer.Exit
        # typer swallows an interrupt and says so by this code
        return _fail("interrupted", 130, json_wanted) if code == 130 else code
    except typer.Exit as exc:
        return int(exc.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130, json_wanted)
    except LmdError as exc:
        return _fail(str(exc), exc.exit_code, json_wanted, getattr(exc, "details", {}))
    except BridgeError as exc:
        return _fail(str(exc), 2, json_wanted)
    except BrokenPipeError:
        return _nobody_reads()
    except SystemExit as exc:
        # typer ends so after completion, and when a pipe breaks while a command prints
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":
            return _nobody_reads()
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except Exception as exc:
        # a wrong word: typer carries its own copy of click, so the class is told by its method
        if hasattr(exc, "format_message"):
            if type(exc).__name__ == "NoArgsIsHelpError":
                print(exc.ctx.get_help(), file=sys.stderr)  # type: ignore[attr-defined]
                return 2
            return _fail(_usage(exc, arguments), 2, json_wanted)
        if os.environ.get("LMD_DEBUG"):
            raise
        if isinstance(exc, OSError) and exc.filename is not None:
            return _fail(f"{exc.filename}: {exc.strerror}", 2, json_wanted)
        sentence = f"internal error: {type(exc).__name__}: {exc} (LMD_DEBUG=1 shows where)"
        return _fail(sentence, 1, json_wanted)


def _nobody_reads() -> int:
    """The reader of standard output has left: be silent, and fail as any program does then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 128 + signal.SIGPIPE  # not 0: what was to be said may have been a failure


def _usage(exc: Any, arguments: list[str]) -> str:
    """What is wrong with the words, with the value that was given."""
    said = " ".join(str(exc.format_message()).split())
    for option in getattr(getattr(exc, "param", None), "opts", ()):
        for n, word in enumerate(arguments):
            given = word.partition("=")[2] if word.startswith(f"{option}=") else None
            if word == option and n + 1 < len(arguments):
                given = arguments[n + 1]
            if given is not None and given not in said:
                kind = "a whole number" if "integer" in said else "a number"
                return f"{option} {given}: " + (
                    f"must be {kind}" if "number" in said or "integer" in said else said
                )
    return said


def _fail(message: str, code: int, json_wanted: bool, details: dict[str, Any] | None = None) -> int:
    """One sentence on stderr; with --json also an object on stdout, unless one is there."""
    from controller.terminal import Said, print_json

    sentence = " ".join(message.split())
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {sentence}", file=sys.stderr)
        if json_wanted and not Said.json:
            print_json({"error": sentence, "exit_code": code, **(details or {})})
    return code
