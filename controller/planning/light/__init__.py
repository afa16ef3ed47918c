"""Laser power and gate on the motion profile."""
