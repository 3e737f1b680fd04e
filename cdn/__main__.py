"""`python -m cdn`."""

from cdn.cli import main

main()
