"""Time laws: how fast a path is travelled, within which limits."""
