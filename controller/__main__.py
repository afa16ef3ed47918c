"""``python -m controller`` is the ``lmd`` command."""

from controller.cli import main

main()
