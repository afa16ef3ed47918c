"""A board in QEMU: started, wired, ended by its process id."""

import asyncio
import os
import re
import shutil
import subprocess
import tty
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRMWARE = ROOT / "firmware_bridge" / "firmware"
OUT = ROOT / "build" / "firmware"
TOOLS = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "cppcheck": "cppcheck",
}
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
NONCE = 0x5EED0001
NONCE_AT = 0x20001000  # where the port's start-up looks, board.c

needs_tools = pytest.mark.skipif(
    bool(MISSING), reason=f"needs {', '.join(MISSING)}: make test-arm installs them"
)
MACHINE = ["qemu-system-arm", "-M", "lm3s6965evb", "-display", "none", "-monitor", "none"]


def build(*targets: str) -> None:
    """Images, as far as they are not there. Raises CalledProcessError."""
    subprocess.run(["make", "-s", "-C", str(FIRMWARE), *targets], check=True)


def selftest(command: list[str]) -> dict[str, str]:
    """What a self-test prints."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout
    return dict(re.findall(r"^([\w ]+)=(\w+)$", done.stdout, re.M))


def selftest_in_qemu() -> dict[str, str]:
    """The same on the emulated Cortex-M3; one instruction is one ns of its time."""
    command = [*MACHINE, "-serial", "null", "-icount", "shift=0,sleep=off"]
    command += ["-semihosting-config", "enable=on,target=native"]
    return selftest([*command, "-kernel", str(OUT / "qemu" / "selftest.elf")])


class Board:
    """The firmware in QEMU: ``path`` is the segment protocol's line; a bench line beside it.

    ``edges`` are (gate, device us) as the board saw them, not as the firmware reported.
    """

    def __init__(self) -> None:
        command = [*MACHINE, "-serial", "pty", "-serial", "pty"]
        command += ["-device", f"loader,addr={NONCE_AT},data={NONCE},data-len=4"]
        self.process = subprocess.Popen(
            [*command, "-kernel", str(OUT / "qemu" / "firmware.elf")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        paths: list[str] = []
        assert self.process.stdout is not None
        while len(paths) < 2:
            line = self.process.stdout.readline()
            assert line, "QEMU ended at once"
            paths += re.findall(r"(/dev/pts/\d+)", line)
        self.path, bench = paths
        self._bench = os.open(bench, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._bench)
        self._text = ""
        self._places: asyncio.Future[list[int]] | None = None
        self.edges: list[tuple[int, int]] = []

    def listen(self) -> None:
        """Within a running loop."""
        asyncio.get_running_loop().add_reader(self._bench, self._readable)

    def _readable(self) -> None:
        try:
            self._text += os.read(self._bench, 4096).decode("ascii")
        except OSError:  # QEMU looks once a second whether anybody has the line open
            return
        *lines, self._text = self._text.split("\n")
        for line in lines:
            kind, *numbers = line.split()
            values = [int(n) for n in numbers]
            if kind == "g":
                self.edges.append((values[0], values[1]))
            elif self._places is not None and not self._places.done():
                self._places.set_result(values)

    def set_input(self, number: int, value: bool) -> None:
        """An input of board.h."""
        os.write(self._bench, bytes([(ord("A") if value else ord("a")) + number]))

    async def places(self) -> list[int]:
        """Steps of six axes from home, power, gate, greatest stack in bytes; counted by the board.

        Asked again until there is an answer: at first the emulator does not listen.
        """
        for _ in range(50):
            self._places = asyncio.get_running_loop().create_future()
            os.write(self._bench, b"?")
            try:
                return await asyncio.wait_for(self._places, 0.2)
            except TimeoutError:
                continue
        raise AssertionError("the bench line of the board does not answer")

    def close(self) -> None:
        """End this QEMU and no other."""
        self.process.kill()
        self.process.wait()
        os.close(self._bench)
        assert self.process.stdout is not None
        self.process.stdout.close()
