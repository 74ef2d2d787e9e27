"""`python -m lscd` is the same as `lscd`."""

from lscd.cli import main

main()
