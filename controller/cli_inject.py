"""``lmd inject``: break something in a simulated cell now, or mend it."""

import json as json_lib
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.errors import ConfigError, LmdError

ANSWER_S = 5.0
LARGEST_B = 65_536


def inject(
    device: Annotated[str, typer.Argument(help="As in a scenario file: safety, laser...")] = "",
    layer: Annotated[str, typer.Argument(help="wire, protocol, physics or process.")] = "",
    kind: Annotated[str, typer.Argument(help="What breaks; without a device all are listed.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-O", help="KEY=VALUE of the kind.")
    ] = None,
    length: Annotated[str | None, typer.Option("--length", help='How long, as "5 s".')] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Mend it instead.")] = False,
    cell: Annotated[str, typer.Option("--cell", help="Cell: name or path.")] = "sim",
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")
    ] = False,
) -> None:
    """Break something in a simulated cell that runs, or mend it."""
    from controller.cli_cell import default_run_dir
    from controller.terminal import print_json, print_table

    request: dict[str, Any] = {}
    if device:
        request = {"device": device, "layer": layer, "kind": kind, "options": _options(option)}
        if length is not None:
            request["length"] = length
    answer = _told(default_run_dir(Path(cell).stem), request, clear=clear)
    if json:
        print_json(answer)
    elif "kinds" in answer:
        rows = [
            [k["device"], k["layer"], k["kind"], ", ".join(k["options"])] for k in answer["kinds"]
        ]
        print_table("what can break", ["device", "layer", "kind", "options"], rows, text_last=True)
    else:
        what = "mended" if clear else "broken"
        print(f"{device} {layer} {kind}: {what} at {answer['t_us'] * 1e-6:.3f} s of the machine")


def _options(given: list[str] | None) -> dict[str, Any]:
    """KEY=VALUE; a value that is a number is one, all else is text with a unit."""
    found: dict[str, Any] = {}
    for text in given or []:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError(f"--option {text}: is not KEY=VALUE")
        try:
            found[key] = float(value)
        except ValueError:
            found[key] = value
    return found


def _told(run_dir: Path, request: dict[str, Any], *, clear: bool) -> dict[str, Any]:
    """By the server where one runs, else by the simulator's own control socket."""
    if (run_dir / "server.json").exists():
        from controller.api.client import Client

        with Client(run_dir, role="tester", name="lmd inject") as client:
            answer: dict[str, Any] = client.call(
                "inject", **request, **({"clear": True} if clear else {})
            )
        return answer
    from controller.cli_cell import read_simulator

    path = read_simulator(run_dir.name, None).get("control_socket")
    if path is None:
        raise ConfigError("this simulator runs in virtual time: faults go through its server")
    command = ("clear" if clear else "inject") if request else "kinds"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(ANSWER_S)
        try:
            sock.connect(str(path))
            sock.send(json_lib.dumps({"command": command, **request}).encode())
            answer = json_lib.loads(sock.recv(LARGEST_B))
        except (OSError, ValueError) as exc:
            raise LmdError(f"the simulator does not answer: {exc}") from None
    if not answer["ok"]:
        raise ConfigError(str(answer["error"]))
    return answer
