"""`python -m graphopt` is the command `graphopt`."""

from __future__ import annotations

from graphopt.cli import main

main()
