"""The configuration that a board is built with, as a C file (docs/protocol.md, section 8).

    python firmware_bridge/firmware/tools/config_blob.py --cell sim OUT.c
    python firmware_bridge/firmware/tools/config_blob.py --bench OUT.c

``--cell`` takes it from a cell file, as ``lmd serve`` does, so that the hashes agree. ``--bench``
is six axes for the self-test and the fuzzer.
"""

import argparse
import os
from pathlib import Path

from firmware_bridge.link_types import AxisSettings, LinkSettings

# every kind of input in use, and an encoder of one count a step
BENCH = LinkSettings(
    axes=(
        AxisSettings(400, 120, 2000, 0, 300, True, True, encoder_per_mm=400, lost_steps=60),
        AxisSettings(400, 120, 2000, 0, 300, limit_high=True),
        AxisSettings(400, 40, 500, 0, 250, True),
        AxisSettings(200, 90, 900, -180, 180),
        AxisSettings(100, 180, 1800, -3600, 3600),
        AxisSettings(800, 20, 300, 0, 100),
    ),
    total_accel_mm_s2=2000,
    plan_share=0.8,
    longest_emission_s=600,
    following_error_input=True,
    probe_input=True,
)


def c_source(settings: LinkSettings, title: str) -> str:
    """C source of ``PORT_CONFIG``."""
    blob = settings.config_blob()
    rows = [", ".join(f"0x{b:02x}" for b in blob[i : i + 16]) for i in range(0, len(blob), 16)]
    body = ",\n    ".join(rows)
    return (
        f"/* {title}: {len(settings.axes)} axes, hash {settings.config_hash():08x}. Made. */\n"
        '#include "port.h"\n\n'
        f"const uint8_t PORT_CONFIG[] = {{\n    {body},\n}};\n"
        "const uint32_t PORT_CONFIG_SIZE = sizeof PORT_CONFIG;\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cell", help="cell file or name")
    which.add_argument("--bench", action="store_true")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.bench:
        text = c_source(BENCH, "Six axes for the bench")
    else:
        from controller.config import load_cell
        from controller.machine.cell import link_settings

        cell, _ = load_cell(args.cell)
        text = c_source(link_settings(cell), f"Cell {cell.name}")
    temp = args.out.with_suffix(".tmp")
    temp.write_text(text, encoding="utf-8")
    os.replace(temp, args.out)


if __name__ == "__main__":
    main()
