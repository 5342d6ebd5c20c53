"""`python -m stacknorm`: the same as the command `stacknorm`."""

from stacknorm.cli import app

app()
