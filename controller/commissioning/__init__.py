"""Commissioning: what a cell is measured for before it may build, and the results kept.

``kinds`` says what there is, ``fits`` turns readings into values, ``store`` keeps results
signed and dated, ``routines`` drive the cell through its server while readings are taken.
"""
