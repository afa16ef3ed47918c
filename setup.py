"""Compiled parts: Cython kernels and the firmware core as a native shared library.

``LMD_CYTHON_DEBUG=1`` turns every check on in all kernels; directives live nowhere else.
``LMD_ONLY=controller._motion`` builds one extension.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("LMD_CYTHON_DEBUG") == "1"
ONLY = os.environ.get("LMD_ONLY")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": not DEBUG,
    "overflowcheck": DEBUG,
    "show_performance_hints": not DEBUG,
}
# -ffp-contract=off: the same bits on every processor, so that the same job has the same hash
C_FLAGS = ["-O0", "-g"] if DEBUG else ["-O3"]
C_FLAGS += ["-ffp-contract=off"]

KERNELS = [
    "controller/_circle.pyx",
    "controller/_curve.pyx",
    "controller/_motion.pyx",
    "controller/_lookahead.pyx",
    "controller/_emit.pyx",
    "controller/_judge.pyx",
    "controller/_jerk.pyx",
    "controller/_joint_law.pyx",
    "controller/geometry/_mesh.pyx",
    "controller/geometry/_slice.pyx",
    "controller/geometry/_raster.pyx",
    "controller/geometry/_triangulate.pyx",
    "hil_sim/plant/_source.pyx",
    "hil_sim/plant/_bead.pyx",
    "hil_sim/plant/_kernel.pyx",
    "hil_sim/devices/_pool_image.pyx",
    "firmware_bridge/_pool.pyx",
]
FIRMWARE = Path("firmware_bridge/firmware")

extensions = [
    Extension(
        path[:-4].replace("/", "."),
        [path],
        depends=[str(p) for p in sorted(Path(path).parent.glob("*.pxd"))],
        extra_compile_args=C_FLAGS,
    )
    for path in KERNELS
    if Path(path).exists()
]
if ONLY:
    extensions = [e for e in extensions if e.name == ONLY]
# C of its own for debug: a build without checks must never take up C that was made with them
extensions = cythonize(
    extensions,
    compiler_directives=DIRECTIVES,
    build_dir="build/cython-debug" if DEBUG else "build/cython",
    quiet=True,
)
if (FIRMWARE / "core").exists():
    extensions.append(
        Extension(
            "hil_sim._firmware",  # loaded by ctypes, it has no module init
            sorted(str(p) for d in ("core", "native") for p in (FIRMWARE / d).glob("*.c")),
            include_dirs=[str(FIRMWARE / "core"), str(FIRMWARE / "native")],
            depends=[str(p) for p in FIRMWARE.rglob("*.h")],
            extra_compile_args=["-std=c11", "-Wall", "-Wextra", "-Wconversion", *C_FLAGS],
        )
    )
if ONLY:
    extensions = [e for e in extensions if e.name == ONLY]
    if not extensions:
        raise SystemExit(f"LMD_ONLY={ONLY}: no such extension")

PACKAGES = [
    "configs",
    "controller",
    "controller.api",
    "controller.commissioning",
    "controller.export",
    "controller.geometry",
    "controller.machine",
    "controller.machine.interlocks",
    "controller.planning",
    "controller.planning.light",
    "controller.planning.motion",
    "controller.planning.path",
    "controller.planning.powder",
    "controller.planning.rest",
    "controller.process",
    "controller.record",
    "firmware_bridge",
    "firmware_bridge.devices",
    "gui",
    "hil_sim",
    "hil_sim.devices",
    "hil_sim.plant",
]

setup(
    packages=PACKAGES,
    ext_modules=extensions,
    include_package_data=False,  # else sources of the compiled parts are installed too
    package_data={
        "configs": ["*/*.toml"],
        "controller.record": ["*.html"],
        "controller.export": ["templates/*.j2"],
        "controller": ["py.typed", "*.pyi"],
        "controller.geometry": ["*.pyi"],
    },
)
