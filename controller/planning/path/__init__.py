"""Tracks to a path: moves, corners, arcs, and the way of the machine's axes."""
