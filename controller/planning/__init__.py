"""Tracks to a plan: motion, laser power and powder as one thing, down to wire segments."""

from controller.planning.job import job_hash, read_job, write_job
from controller.planning.plan import plan_build

__all__ = ["job_hash", "plan_build", "read_job", "write_job"]
