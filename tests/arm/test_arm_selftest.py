"""10^5 segments on a Cortex-M3 and here; what the images are made of."""

import re
import subprocess
import sys
import time

import pytest

from tests.arm.arm_bench import FIRMWARE, OUT, build, needs_tools, selftest, selftest_in_qemu

pytestmark = [pytest.mark.arm, pytest.mark.slow, needs_tools]


@pytest.fixture(scope="module")
def here():
    build("selftest")
    return selftest([str(OUT / "host" / "selftest")])


@pytest.fixture(scope="module")
def there():
    build("qemu")
    return selftest_in_qemu()


def test_same_segments_same_outputs_frames_and_state_on_both(here, there):
    assert here["segments"] == there["segments"] == "100000"
    for name in ("simulated_us", "steps", "gate_edges", "outputs", "frames", "state"):
        assert here[name] == there[name], name


def test_job_moves_emits_and_probes(here):
    """A hash over nothing would be equal too."""
    assert int(here["steps"]) > 5_000_000
    assert int(here["gate_edges"]) > 3000
    assert (here["fault"], here["refused"], here["probe"]) == ("0", "0", "2")


def test_hash_sees_one_segment_less(here):
    fewer = subprocess.run(
        [str(OUT / "host" / "selftest"), "99999"], capture_output=True, text=True, check=True
    ).stdout
    for name in ("outputs", "frames", "state"):
        assert f"{name}={here[name]}" not in fewer


def test_outputs_do_not_depend_on_the_size_of_the_queue(here):
    """The boards of this repository have queues of 1024 and 2048."""
    big = selftest([str(OUT / "host" / "selftest_2048")])
    assert big["queue"] == "2048"
    assert (big["outputs"], big["state"]) == (here["outputs"], here["state"])


def test_no_call_takes_more_instructions_than_a_board_has_time_for(there):
    """Bounds for 168 MHz and 1 ms: docs/firmware.md. Fails as well when nothing is counted."""
    bounds = {
        "one step": 20_000,
        "20 segments": 80_000,
        "stop at once": 6_000,
        "16 bytes of noise": 12_000,
        "1000 records at one instant": 100_000,
    }
    for name, bound in bounds.items():
        assert 100 < int(there[f"count {name}"]) < bound, name


def test_stack_used_is_not_more_than_the_stack_computed(there):
    sys.path.insert(0, str(FIRMWARE / "tools"))
    try:
        from image import read_image, worst_path
    finally:
        sys.path.pop(0)
    computed, way = worst_path(read_image(OUT / "qemu" / "selftest.elf"), "main")
    assert 256 < int(there["stack"]) <= computed + 64, way


def test_sources_and_images_pass_the_checks():
    """cppcheck, MISRA rules, recursion, frames, size of the stack."""
    build("all")
    done = subprocess.run(
        [sys.executable, str(FIRMWARE / "tools" / "check.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "worst stack" in done.stdout


def test_nucleo_image_starts_where_the_chip_looks():
    """Word 0 is the stack's top, within the RAM; word 1 the reset, within the flash, Thumb."""
    build("stm32")
    image = (OUT / "nucleo_f446re" / "firmware.bin").read_bytes()
    stack, reset = (int.from_bytes(image[i : i + 4], "little") for i in (0, 4))
    assert 0x20000000 < stack <= 0x20020000
    assert 0x08000000 < reset < 0x08000000 + len(image)
    assert reset % 2 == 1
    assert 8_000 < len(image) < 512 * 1024
    # interrupts of the port, at the places of the reference manual
    used = {16 + 57, 16 + 38, 16 + 17}
    vectors = [int.from_bytes(image[4 * n : 4 * n + 4], "little") for n in range(16, 16 + 64)]
    common = max(set(vectors), key=vectors.count)
    assert {16 + n for n, v in enumerate(vectors) if v != common} == used


def test_nucleo_image_starts_and_waits_for_its_clock():
    """In QEMU's STM32F405, which has neither the clock tree nor the DMA: start-up only.

    Memory laid out, configuration taken, all set-up written without a fault; then main() waits.
    """
    build("stm32")
    image = OUT / "nucleo_f446re" / "emulated.elf"
    listing = subprocess.run(
        ["arm-none-eabi-objdump", "-d", str(image)], capture_output=True, text=True, check=True
    ).stdout
    waits = [int(a, 16) for a in re.findall(r"^ *([0-9a-f]+):\tbf30 ", listing, re.M)]
    assert len(waits) == 1
    command = ["qemu-system-arm", "-M", "netduinoplus2", "-display", "none", "-serial", "null"]
    with subprocess.Popen(
        [*command, "-monitor", "stdio", "-kernel", str(image)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            time.sleep(2.0)  # the emulator's clock is the wall's
            said, _ = process.communicate("info registers\nquit\n", timeout=20)
        finally:
            process.kill()
    at = int(re.findall(r"R15=([0-9a-f]{8})", said)[-1], 16)
    mode = int(re.findall(r"XPSR=([0-9a-f]{8})", said)[-1], 16)
    assert mode & 0x1FF == 0, f"in exception {mode & 0x1FF}"
    assert at in (waits[0], waits[0] + 2)
