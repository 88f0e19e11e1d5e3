"""`python -m empo_demo`: the terminal of EmPO Arena."""

from empo_demo.cli import main

main()
