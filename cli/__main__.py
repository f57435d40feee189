"""`python -m cli` is `isa`."""

from cli.main import main

main()
