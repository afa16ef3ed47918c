"""Sphinx settings of ``make docs``."""

project = "LMD controller"
author = "the LMD controller's maintainers"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1200px", "sidebar_width": "270px"}
html_show_sourcelink = False
myst_heading_anchors = 3
