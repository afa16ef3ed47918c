"""Everything decided on the host: geometry, plan, machine, record, API, command line."""

__version__ = "0.1.0"
