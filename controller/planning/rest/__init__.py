"""The rest of a build that was interrupted: back to its place, and on."""
