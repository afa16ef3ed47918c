"""The real firmware core as the simulated motion controller (ctypes; C API: fw_native.h).

Device time is simulated: it moves only in ``run``. Nothing here knows the protocol.
"""

import ctypes
from importlib import machinery
from pathlib import Path

import numpy as np

N_AXES = 6
TX_BYTES = 65536
# one entry of the trace, in order of time
ROW = np.dtype(
    [
        ("t_us", "<u8"),
        ("kind", "<u4"),
        ("arg", "<i4"),
        ("segment", "<u4"),
        ("power", "<u4"),  # 1/65535 of full scale
        ("pos", "<i4", (N_AXES,)),  # steps
    ]
)
# the state at each whole ms
SAMPLE = np.dtype(
    [
        ("t_us", "<u8"),
        ("pos", "<i4", (N_AXES,)),
        ("power", "<u2"),
        ("gate", "u1"),
        ("armed", "u1"),
        ("state", "<u2"),
        ("fault", "<u2"),
        ("segment", "<u4"),
        ("beat_age_us", "<u4"),
    ]
)
assert ROW.itemsize == 48
assert SAMPLE.itemsize == 48

# kinds of rows
GATE, SEGMENT_END, ARMED, STATE, FAULT, TRACK_START, BEAT, FAULT_RESET, HOLD = range(1, 10)
PROBED, PROBE_MISSED = 14, 15
# inputs; of axis k: its home switch, and limit switches at both ends
INPUT_INTERLOCK, INPUT_SWITCH, INPUT_LIMIT_LOW, INPUT_LIMIT_HIGH = 0, 1, 7, 13
INPUT_PROBE, INPUT_FOLLOWING = 19, 20
_MAX_ROWS = 8192
_MAX_SAMPLES = 4096


def library_path() -> Path:
    """The compiled core beside this module. Raises FileNotFoundError with the remedy."""
    here = Path(__file__).parent
    for suffix in machinery.EXTENSION_SUFFIXES:
        path = here / f"_firmware{suffix}"
        if path.is_file():
            return path
    raise FileNotFoundError(f"{here}/_firmware*.so is missing: run make setup")


def _load() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library_path()))
    handle, u32, u64, data = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_char_p
    signatures: dict[str, tuple[object, list[object]]] = {
        "fw_native_new": (handle, [data, u32, u32]),
        "fw_native_free": (None, [handle]),
        "fw_native_rx": (None, [handle, data, u32]),
        "fw_native_run": (u64, [handle, u64]),
        "fw_native_tx": (u32, [handle, ctypes.c_void_p, u32]),
        "fw_native_rows": (u32, [handle, ctypes.c_void_p, u32]),
        "fw_native_samples": (u32, [handle, ctypes.c_void_p, u32]),
        "fw_native_input": (None, [handle, u32, u32]),
        "fw_native_sensor": (None, [handle, u32, u32, ctypes.c_int32, ctypes.c_int32]),
        "fw_native_place": (None, [handle, u32, ctypes.c_int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


class NativeFirmware:
    """One motion controller.

    Parameters
    ----------
    config : configuration blob (docs/protocol.md, section 8)
    boot_nonce : what a real device draws at power-up, u32

    Raises ValueError when the firmware refuses the configuration.
    """

    def __init__(self, config: bytes, boot_nonce: int) -> None:
        self._lib = _load()
        self._handle = self._lib.fw_native_new(config, len(config), boot_nonce)
        if not self._handle:
            raise ValueError(f"the firmware refuses the configuration ({len(config)} bytes)")
        self.now_us = 0
        self._tx = ctypes.create_string_buffer(TX_BYTES)
        self._tx_at = ctypes.addressof(self._tx)
        self._rows = np.empty(_MAX_ROWS, ROW)
        self._rows_at = self._rows.ctypes.data
        self._samples = np.empty(_MAX_SAMPLES, SAMPLE)
        self._samples_at = self._samples.ctypes.data

    def close(self) -> None:
        """Free the controller; the object is of no use afterwards."""
        if self._handle:
            self._lib.fw_native_free(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def rx(self, data: bytes) -> None:
        """Bytes that arrive at the present device time."""
        self._lib.fw_native_rx(self._handle, data, len(data))

    def run(self, until_us: int) -> int:
        """Run to ``until_us``; returns the time reached, us.

        Returns early, at that very instant, when bytes to send appear (at once if some wait:
        fetch them with ``tx`` first), or when rows or samples (4096 ms) must be fetched.
        """
        self.now_us = self._lib.fw_native_run(self._handle, until_us)
        return self.now_us

    def tx(self) -> bytes:
        """Bytes that the controller has sent since the last call."""
        n = self._lib.fw_native_tx(self._handle, self._tx_at, TX_BYTES)
        return ctypes.string_at(self._tx_at, n) if n else b""

    def rows(self) -> np.ndarray:
        """Trace rows since the last call, (n,) ROW."""
        n = self._lib.fw_native_rows(self._handle, self._rows_at, _MAX_ROWS)
        return self._rows[:n].copy()

    def samples(self) -> np.ndarray:
        """States at whole ms since the last call, (n,) SAMPLE."""
        n = self._lib.fw_native_samples(self._handle, self._samples_at, _MAX_SAMPLES)
        return self._samples[:n].copy()

    def set_input(self, number: int, value: bool) -> None:
        """A digital input changes now; 0 is the hardware interlock (true: permits emission)."""
        self._lib.fw_native_input(self._handle, number, int(value))

    def set_sensor(self, number: int, axis: int, steps: int, sign: int) -> None:
        """An input closes where an axis truly is ``steps`` from its home switch or beyond.

        ``sign`` 1 or -1: the direction in which beyond lies; 0 takes the sensor away.
        """
        self._lib.fw_native_sensor(self._handle, number, axis, steps, sign)

    def place(self, axis: int, steps: int) -> None:
        """True distance of an axis from its home switch, steps (at power-up 1000).

        Called later it is what a slipping drive does: the firmware counts on as before.
        """
        self._lib.fw_native_place(self._handle, axis, steps)
