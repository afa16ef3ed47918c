"""The cell as routines see it: its server's commands, and nothing beside them."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.api.client import Client
from controller.build import follow, make_ready
from controller.commissioning.programs import Program
from controller.config import Cell
from controller.errors import CommissioningError
from controller.planning import write_job

CALL_S = 120.0
LOG_ROWS = 40


class Desk:
    """One client with the service role on a running server.

    ``folder``: where jobs are written. ``tell`` is told what goes on, share 0 to 1.
    """

    def __init__(
        self,
        client: Client,
        cell: Cell,
        cell_text: str,
        folder: Path,
        tell: Callable[[float, str], None] = lambda share, text: None,
    ) -> None:
        self.client, self.cell, self.tell = client, cell, tell
        self._text, self._folder = cell_text, folder
        self._n_jobs = 0

    def ready(self) -> None:
        """Bring the cell to IDLE, homed."""
        make_ready(self.client)

    def read(self, device: str) -> dict[str, Any]:
        """The present reading of a device. Raises CommissioningError without one."""
        found = self.client.call("device_read", device=device)
        if found["reading"] is None or found["error"]:
            raise CommissioningError(f"{device} does not answer: {found['error'] or 'no reading'}")
        return dict(found["reading"])

    def call(self, device: str, call: str, *args: Any) -> int:
        """Tell a device something; the machine's time when it had taken it, us."""
        told = self.client.call(
            "device_call", device=device, call=call, args=list(args), timeout_s=CALL_S
        )
        return int(told["t_us"])

    def wait(self, seconds: float) -> None:
        """Let machine time pass."""
        self.client.call("advance", seconds=seconds, timeout_s=CALL_S)

    def bench(self, line: str) -> str:
        """Ask the bench of instruments; the answer without its first word."""
        answer = str(self.client.call("bench", line=line, timeout_s=CALL_S)["answer"])
        return answer.partition(" ")[2]

    def bench_ahead_us(self) -> int:
        """The bench's clock less the machine's, us."""
        told = self.client.call("bench", line="TIME", timeout_s=CALL_S)
        return int(str(told["answer"]).split()[1]) - int(told["t_us"])

    def measured(self, name: str) -> list[tuple[float, ...]]:
        """Rows that a person reads off the instruments."""
        return _rows(self.bench(f"MEASURE {name}"))

    def count(self, log: str) -> int:
        """How many samples a log of the bench holds."""
        return int(self.bench(f"COUNT {log}"))

    def log(self, log: str, start: int) -> list[str]:
        """Samples of a log from a running number on, each as text."""
        found: list[str] = []
        while True:
            n, _, body = self.bench(f"LOG {log} {start + len(found)}").partition(" ")
            if n == "0":
                return found
            found += body.split(";")

    def samples(self, log: str, start: int) -> list[tuple[float, ...]]:
        """The same as numbers: time in us, values."""
        return [tuple(float(v) for v in row.split(",")) for row in self.log(log, start)]

    def position_steps(self) -> list[int]:
        """Where the axes stand, six, steps."""
        motion = self.client.call("status")["motion"]
        steps = [int(v) for v in motion["position_steps"]]
        return (steps + [0] * 6)[:6]

    def run(self, program: Program, purpose: str) -> None:
        """Run a job to its end, as any build. Raises CommissioningError when it does not."""
        self._n_jobs += 1
        path = self._folder / f"{purpose.replace(':', '-')}-{self._n_jobs}.lmdjob"
        write_job(program.plan(self.position_steps(), purpose, self._text), path)
        self.ready()
        self.client.call("load_job", path=str(path), timeout_s=CALL_S)
        self.client.call("start", mode="development", timeout_s=CALL_S)
        result = follow(self.client, lambda share: self.tell(share, purpose))
        if result["state"] != "COMPLETE":
            alarms = [f"{a['name']} {a.get('detail') or ''}".strip() for a in result["alarms"]]
            raise CommissioningError(
                f"{purpose}: the job ended {result['state']}: {', '.join(alarms) or 'no alarm'}"
            )

    @contextlib.contextmanager
    def quiet_after(self) -> Any:
        """Whatever happens: powder to waste and stopped, gases off, afterwards."""
        try:
            yield
        finally:
            failed = []
            steps: list[tuple[Any, ...]] = [("powder", "set_diverter", False)]
            steps += [("powder", "set_flow", h, 0.0) for h in range(len(self.cell.powder.hoppers))]
            steps += [("gas", "set_carrier", 0.0), ("gas", "set_shield", 0.0)]
            for step in steps:
                try:
                    self.call(*step)
                except Exception as exc:  # a failing step does not skip the next
                    failed.append(str(exc))
            if failed:
                raise CommissioningError(f"not brought to rest: {'; '.join(failed)}")


def _rows(text: str) -> list[tuple[float, ...]]:
    _, _, body = text.partition(" ")
    return [tuple(float(v) for v in row.split(",")) for row in body.split(";") if row]
