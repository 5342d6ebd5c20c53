"""`python -m stacknorm` is `stacknorm`."""

from stacknorm.cli import app

app()
