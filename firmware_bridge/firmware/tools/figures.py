"""The table of docs/firmware.md: stack, instructions, sizes, hashes, all measured now.

make -C firmware_bridge/firmware figures      (rewrites the section between its two marks)
"""

import argparse
import os
import re
import subprocess
from pathlib import Path

from check import IMAGES, OUT, stack_rows  # type: ignore[import-not-found]  # beside this file

BEGIN = "<!-- made by: make -C firmware_bridge/firmware figures -->"
END = "<!-- end of what is made -->"
QEMU = [
    "qemu-system-arm", "-M", "lm3s6965evb", "-display", "none", "-monitor", "none",
    "-serial", "null", "-icount", "shift=0,sleep=off",
    "-semihosting-config", "enable=on,target=native", "-kernel",
]  # fmt: skip
RAM = {"qemu": 64 * 1024, "nucleo_f446re": 128 * 1024}
FLASH = {"qemu": 256 * 1024, "nucleo_f446re": 512 * 1024}


def selftest(command: list[str]) -> dict[str, str]:
    """What a self-test prints."""
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return dict(re.findall(r"^([\w ]+)=(\w+)$", done.stdout, re.M))


def sizes() -> list[str]:
    """Rows of flash and RAM."""
    rows = []
    for image in [i for i in IMAGES if i.endswith("firmware")]:
        out = subprocess.run(
            ["arm-none-eabi-size", str(OUT / f"{image}.elf")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()[1]
        text, data, bss = (int(v) for v in out.split()[:3])
        port = image.split("/")[0]
        rows.append(
            f"| {port} | {text + data} of {FLASH[port]} | {data + bss} of {RAM[port]}, "
            f"{IMAGES[image][1]} of it for the stack |"
        )
    return rows


def section() -> str:
    """The section in Markdown."""
    host = selftest([str(OUT / "host" / "selftest")])
    arm = selftest([*QEMU, str(OUT / "qemu" / "selftest.elf")])
    same = all(host[k] == arm[k] for k in ("outputs", "frames", "state"))
    lines = [BEGIN, "### State hash", ""]
    lines += ["| | native (x86-64) | Cortex-M3 in QEMU |", "|---|---|---|"]
    for key in ("segments", "simulated_us", "steps", "gate_edges", "outputs", "frames", "state"):
        lines.append(f"| {key} | {host[key]} | {arm[key]} |")
    lines += ["", f"{'Equal.' if same else '**NOT EQUAL.**'} `outputs`: steps, gate, power, trace,"]
    lines += ["each with its instant; `frames`: every byte to the host; `state`: at the end.", ""]
    lines += ["### Instructions, the worst of the self-test", ""]
    lines += [
        "Cortex-M3, gcc 12.2 -O2, six axes; counted by QEMU (`-icount shift=0`), steps of 5.",
        "",
    ]
    lines += ["| call | instructions |", "|---|---|"]
    for key, value in arm.items():
        if key.startswith("count "):
            lines.append(f"| {key[6:]} | {value} |")
    lines += ["", "### Stack, bytes, computed from the linked images", ""]
    for image in [i for i in IMAGES if i.endswith("firmware")]:
        lines += [f"| {image.split('/')[0]} | worst | way |", "|---|---|---|"]
        for name, size, way in stack_rows(image):
            lines.append(f"| {name} | {size} | {' > '.join(way)} |")
        lines.append("")
    lines += [f"Greatest use seen in the self-test: {int(arm['stack'])} bytes.", ""]
    lines += ["### Sizes", "", "| port | flash | RAM |", "|---|---|---|", *sizes(), END]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path)
    args = parser.parse_args()
    text = args.document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{args.document}: the two marks of the made section are not there")
    head, rest = text.split(BEGIN)
    temp = args.document.with_suffix(".tmp")
    temp.write_text(head + section() + rest.split(END)[1], encoding="utf-8")
    os.replace(temp, args.document)


if __name__ == "__main__":
    main()
