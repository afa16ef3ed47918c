"""The virtual cell: firmware core, device emulators, process physics, faults, time server.

Imports nothing of the controller or of the drivers: what is written twice is checked.
"""
