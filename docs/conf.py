"""Sphinx settings of ``make docs``."""

project = "LMD controller"
author = "the LMD controller's maintainers"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px"}
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]
