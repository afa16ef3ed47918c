"""toppra, a rival that plans the time-optimal motion along a spline (extra ``bench``)."""

import time
import warnings

import numpy as np

from benchmarks.paths import ACCEL_MM_S2, SPEED_MM_S

SIDES = 32  # of the polygon that stands for the circle of accelerations


def toppra_on(points_mm: np.ndarray, per_move: int = 2) -> dict[str, float] | None:
    """Cubic spline through the corners (x, y), speed and total acceleration limited.

    ``per_move`` grid points a move. The polygon lies around the circle: toppra may use 100 to
    100.5 % of the acceleration. Returns duration_s and work_s,
    its wall time; None when toppra is not installed.
    """
    try:
        import toppra  # type: ignore[import-untyped]
        from toppra import algorithm, constraint
    except ImportError:
        return None

    class Limits(constraint.LinearConstraint):  # type: ignore[misc]
        """|acceleration| <= ACCEL_MM_S2 and path speed <= SPEED_MM_S, all points at once."""

        def __init__(self) -> None:
            super().__init__()
            self.dof = 2
            self.identical = True
            self.set_discretization_type(constraint.DiscretizationType.Collocation)

        def compute_constraint_params(self, path, gridpoints, *args, **more):  # type: ignore
            first, second = path(gridpoints, order=1), path(gridpoints, order=2)
            angle = np.arange(SIDES) * 2.0 * np.pi / SIDES
            sides = np.column_stack([np.cos(angle), np.sin(angle)])
            reach = np.full(SIDES, ACCEL_MM_S2)
            fastest = (SPEED_MM_S / np.linalg.norm(first, axis=1)) ** 2
            cap = np.column_stack([np.zeros(len(first)), fastest])
            return first, second, np.zeros_like(first), sides, reach, None, cap

    toppra.setup_logging("ERROR")
    xy = np.ascontiguousarray(points_mm[:, :2])
    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
    grid = np.interp(np.arange(per_move * (len(s) - 1) + 1) / per_move, np.arange(len(s)), s)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver = algorithm.TOPPRA(
            [Limits()], toppra.SplineInterpolator(s, xy), gridpoints=grid,
            solver_wrapper="seidel", parametrizer="ParametrizeConstAccel",
        )  # fmt: skip
        motion = solver.compute_trajectory(0.0, 0.0)
    work_s = time.perf_counter() - begin
    return {"duration_s": float(motion.duration), "work_s": work_s}
