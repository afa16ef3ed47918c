"""Checks of the firmware that are no test of behaviour; ends with 1 when one fails.

    python firmware_bridge/firmware/tools/check.py [--without-arm]

- cppcheck over core and ports, and its MISRA C:2012 addon: every rule that is not kept must stand
  in DEVIATIONS with its reason;
- the linked images: no recursion, no call that cannot be followed, no frame of unknown size, the
  worst stack of main and interrupt together fits, frames agree with the compiler's notes.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from image import (  # type: ignore[import-not-found]  # beside this file
    EXCEPTION_FRAME,
    compiler_frames,
    read_image,
    worst_path,
)

FIRMWARE = Path(__file__).parents[1]
OUT = FIRMWARE.parents[1] / "build" / "firmware"
PORTS = ["ports/common", "ports/qemu_lm3s6965", "ports/nucleo_f446re"]
# image: entry points of its interrupts, bytes of its stack
IMAGES: dict[str, tuple[list[str], int]] = {
    "qemu/selftest": ([], 4096),
    "qemu/firmware": (["port_systick", "port_uart0", "port_uart1"], 4096),
    "nucleo_f446re/firmware": (["port_dma2_stream1", "port_usart2", "port_dma1_stream6"], 8192),
}
# MISRA C:2012 rules that are not kept, and why. All mandatory rules are kept.
DEVIATIONS = {
    "2.5": "register headers name what belongs together",
    "5.6": "static types of the same name in files that do not meet",
    "5.7": "the addon takes all enums without a tag for one",
    "5.9": "static functions of the same name in files that do not meet",
    "8.4": "main, and handlers that the vector table alone refers to",
    "8.6": "symbols that the linker script defines",
    "8.7": "functions between the files of the core that tests call too",
    "8.9": "tables stand at the top of the file",
    "8.11": "symbols of the linker script have no size",
    "10.1": "enumeration constants are compared with numbers of the wire",
    "10.2": "digits are made as '0' + n",
    "10.4": "enumeration constants beside unsigned; -Wconversion watches",
    "10.6": "16-bit products are widened by the assignment; -Wconversion watches",
    "10.7": "16-bit operands in 32-bit sums; -Wconversion watches",
    "10.8": "casts of sums whose range stands beside them",
    "11.4": "registers are addresses",
    "11.8": "false alarm of the addon on reading through const",
    "12.1": "C's precedence of + - * / is known to readers; -Wparentheses watches the rest",
    "12.2": "shift counts are bounded where they are made",
    "14.2": "loops with a second end condition",
    "15.4": "one loop leaves at two places",
    "15.5": "refusals return early: a guard is read from the top",
    "15.7": "an else that does nothing would say nothing",
    "18.4": "pointers step through byte buffers of stated length",
    "19.2": "vector table: a stack pointer and handlers are of one size",
}
SUPPRESS = [
    "missingIncludeSystem",
    "unusedFunction",
    # the events' loop begins with a full log, so the record's buffer is written before it is sent
    "uninitvar:core/fw_tx.c",
    # the DMA's counter is a register: cppcheck takes two reads for the same
    "knownConditionTrueFalse:ports/nucleo_f446re/board.c",
    # section ends are symbols of the linker
    "comparePointers:ports/common/startup.c",
]


def cppcheck(extra: list[str]) -> list[str]:
    """Lines of findings."""
    command = ["cppcheck", "--std=c11", "--platform=arm32-wchar_t4", "-q", "--inline-suppr"]
    command += [
        "--enable=warning,style,performance,portability",
        "--template={file}:{line}: {id}: {message}",
    ]
    command += [f"--suppress={s}" for s in SUPPRESS]
    command += [f"-I{d}" for d in ["core", *PORTS]] + extra + ["core", *PORTS]
    done = subprocess.run(command, cwd=FIRMWARE, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cppcheck: {done.stderr or done.stdout}")
    return sorted({line for line in done.stderr.splitlines() if re.match(r"[\w/.]+:\d+: ", line)})


def check_source() -> list[str]:
    """cppcheck's findings, and MISRA rules without a stated reason."""
    bad = [line for line in cppcheck([]) if "misra-" not in line]
    rules: Counter[str] = Counter()
    for line in cppcheck(["--addon=misra"]):
        found = re.search(r"misra-c2012-(\d+\.\d+)", line)
        if found:
            rules[found.group(1)] += 1
            if found.group(1) not in DEVIATIONS:
                bad.append(line)
    bad += [
        f"rule {r} is kept everywhere: take it off DEVIATIONS" for r in DEVIATIONS if not rules[r]
    ]
    if not rules:
        bad.append("the MISRA addon found nothing at all: it did not run")
    kept = ", ".join(
        f"{r} ({n})" for r, n in sorted(rules.items(), key=lambda i: [*map(int, i[0].split("."))])
    )
    print(f"cppcheck: {len(bad)} findings; MISRA C:2012 rules not kept, with a reason: {kept}")
    return bad


def stack_rows(image: str) -> list[tuple[str, int, list[str]]]:
    """(entry, worst bytes, way) for the core's functions, the interrupts, and the whole."""
    functions = read_image(OUT / f"{image}.elf")
    interrupts, _ = IMAGES[image]
    core = ["fw_init", "fw_step", "fw_rx", *(["fw_inputs"] if interrupts else [])]
    rows = [(entry, *worst_path(functions, entry)) for entry in [*core, *interrupts, "main"]]
    if not interrupts:
        return rows
    deepest = max((r for r in rows if r[0] in interrupts), key=lambda r: r[1])
    whole = rows[-1][1] + EXCEPTION_FRAME + deepest[1]
    return [*rows, ("main, interrupted", whole, ["main", "exception", *deepest[2]])]


def check_image(image: str) -> list[str]:
    """Recursion, strange calls, frames, size of the stack."""
    try:
        rows = stack_rows(image)
        noted = compiler_frames(OUT / f"{image}.objs")
    except (ValueError, KeyError) as exc:
        return [f"{image}: {exc}"]
    functions = read_image(OUT / f"{image}.elf")
    bad = []
    seen: Counter[str] = Counter()
    most: dict[str, int] = {}
    for f in functions.values():
        name = f.name.split(".")[0]
        most[name] = max(most.get(name, 0), f.frame)
        seen[name] += 1
    for name, frame in most.items():
        if name in noted and frame < noted[name]:
            bad.append(f"{image}: {name}: frame {frame} read, {noted[name]} noted by the compiler")
    size = IMAGES[image][1]
    if rows[-1][1] > size:
        bad.append(f"{image}: stack {rows[-1][1]} above {size} bytes")
    print(f"{image}: {len(functions)} functions, no recursion, worst stack {rows[-1][1]} of {size}")
    return bad


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-arm", action="store_true", help="sources only")
    args = parser.parse_args()
    bad = check_source()
    if not args.without_arm:
        for image in IMAGES:
            bad += check_image(image)
    for line in bad:
        print(line, file=sys.stderr)
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
