"""`python -m worker` is `stacknorm-worker`."""

from worker.cli import main

main()
