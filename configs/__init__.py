"""The files that come with the program: cells, materials, recipes, scenarios, maps."""
