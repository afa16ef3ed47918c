"""What a melt-pool camera is set to and calibrated with: a TOML file.

Read strictly: an unknown or missing key, a wrong type or a value out of its limits is a
``MapError`` that names file, key, value and limit. Feature names and their units are GenICam's
(Standard Features Naming Convention): ExposureTime in us, Gain in dB, AcquisitionFrameRate in Hz.
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge._pool import PoolKernel
from firmware_bridge.errors import MapError
from firmware_bridge.named_file import read_named

MAX_BYTES = 50_000
C2_UM_K = 14387.77  # second radiation constant, um K (CODATA)
KELVIN = 273.15
FULL = {"Mono8": 255, "Mono16": 65535}

# section, key: least, most
LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "features": {
        "Width": (16, 2048),
        "Height": (16, 2048),
        "ExposureTime": (1.0, 100_000.0),
        "Gain": (0.0, 48.0),
        "AcquisitionFrameRate": (1.0, 10_000.0),
    },
    "optics": {"scale_um_px": (0.5, 1000.0), "blur_px": (0.0, 5.0)},
    "radiance": {
        "wavelength_nm": (400.0, 2500.0),
        "counts_per_us": (1.0, 1e12),
        "edge_deg_c": (200.0, 3500.0),
    },
    "limits": {"least_area_mm2": (0.0, 100.0), "saturated_share": (0.0, 1.0)},
}
TEXTS = ("title", "source", "role")


@dataclass(frozen=True)
class CameraSetup:
    """A camera file as read. ``features`` are set on the camera when it is connected."""

    origin: str
    title: str
    fictitious: bool
    features: dict[str, Any]
    scale_mm_px: float
    blur_px: float
    wavelength_um: float
    counts_per_us: float
    edge_deg_c: float
    least_area_mm2: float
    saturated_share: float

    def counts_at(self, temp_deg_c: float) -> float:
        """Counts above background of a surface of this temperature (Wien's law)."""
        wien_k = C2_UM_K / self.wavelength_um
        return self._counts() * math.exp(-wien_k / (temp_deg_c + KELVIN))

    def kernel(self) -> PoolKernel:
        """The extraction for this set-up. Raises MapError where no edge could be seen."""
        features = self.features
        full = FULL[features["PixelFormat"]]
        level = self.counts_at(self.edge_deg_c)
        if not 2.0 <= level < 0.9 * full:
            raise MapError(
                f"{self.origin}: features.ExposureTime {features['ExposureTime']:g} us: the edge "
                f"at {self.edge_deg_c:g} degC gives {level:.3g} counts, not 2 to {0.9 * full:g}"
            )
        values = np.arange(full + 1, dtype=np.float64)
        values[0] = 0.25  # half of what the converter's first step could hold
        ln_signal = np.log(values)
        inverse = (math.log(self._counts()) - ln_signal) * self.wavelength_um / C2_UM_K
        # beyond this no metal is liquid, and the law's own pole lies behind it
        temp_deg_c = 1.0 / np.maximum(inverse, 1.0 / 6000.0) - KELVIN
        return PoolKernel(
            features["Width"],
            features["Height"],
            ln_signal=ln_signal,
            temp_deg_c=temp_deg_c,
            level=level,
            saturation=full,
            sigma_px=self.blur_px,
            least_px=max(4, round(self.least_area_mm2 / self.scale_mm_px**2)),
        )

    def _counts(self) -> float:
        features = self.features
        share = FULL[features["PixelFormat"]] / FULL["Mono16"]
        gain = 10.0 ** (features["Gain"] / 20.0)
        return float(self.counts_per_us * features["ExposureTime"] * gain * share)


def load_camera(name_or_path: str | Path) -> CameraSetup:
    """Read a camera file by name (``configs/cameras/<name>.toml``) or path. Raises MapError."""
    text, path = read_named("camera", "cameras", name_or_path, MAX_BYTES)
    return parse_camera(text, path)


def parse_camera(text: str, origin: str) -> CameraSetup:
    """A set-up from a file's text; ``origin`` stands in the messages. Raises MapError."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise MapError(f"{origin}: not valid TOML: {exc}") from None
    for key in data:
        if key not in (*TEXTS, "fictitious", *LIMITS):
            raise MapError(f"{origin}: {key} is not known")
    for key in TEXTS:
        if not isinstance(data.get(key), str):
            raise MapError(f"{origin}: {key} must be text, not {data.get(key)!r}")
    if data["role"] != "melt_pool_camera":
        raise MapError(f"{origin}: role is {data['role']!r}, not 'melt_pool_camera'")
    if not isinstance(data.get("fictitious"), bool):
        raise MapError(f"{origin}: fictitious must be true or false")
    sections = {name: _section(data, origin, name) for name in LIMITS}
    features = sections["features"]
    if features["ExposureTime"] * features["AcquisitionFrameRate"] > 1e6:
        raise MapError(
            f"{origin}: features.ExposureTime {features['ExposureTime']:g} us is longer than a "
            f"frame at {features['AcquisitionFrameRate']:g} Hz"
        )
    optics, radiance, limits = (sections[n] for n in ("optics", "radiance", "limits"))
    return CameraSetup(
        origin=origin,
        title=data["title"],
        fictitious=data["fictitious"],
        features=features,
        scale_mm_px=optics["scale_um_px"] * 1e-3,
        blur_px=optics["blur_px"],
        wavelength_um=radiance["wavelength_nm"] * 1e-3,
        counts_per_us=radiance["counts_per_us"],
        edge_deg_c=radiance["edge_deg_c"],
        least_area_mm2=limits["least_area_mm2"],
        saturated_share=limits["saturated_share"],
    )


def _section(data: dict[str, Any], origin: str, name: str) -> dict[str, Any]:
    table = data.get(name)
    if not isinstance(table, dict):
        raise MapError(f"{origin}: {name} is missing or no table")
    known = LIMITS[name]
    extra = {"PixelFormat"} if name == "features" else set()
    for key in table:
        if key not in known and key not in extra:
            raise MapError(f"{origin}: {name}.{key} is not known")
    out: dict[str, Any] = {}
    if extra:
        out["PixelFormat"] = table.get("PixelFormat")
        if out["PixelFormat"] not in FULL:
            raise MapError(
                f"{origin}: {name}.PixelFormat {out['PixelFormat']!r} is not one of "
                f"{', '.join(FULL)}"
            )
    for key, (least, most) in known.items():
        value = table.get(key)
        whole = isinstance(least, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise MapError(f"{origin}: {name}.{key} {value!r} is no {'whole ' * whole}number")
        if not least <= value <= most:
            raise MapError(f"{origin}: {name}.{key} {value:g} is outside {least:g} to {most:g}")
        out[key] = value if whole else float(value)
    return out
