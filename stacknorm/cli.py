"""The command line of `stacknorm`; each command lives in `stacknorm.commands`."""

import typer

from stacknorm.commands import bundle
from stacknorm.commands.compare import compare
from stacknorm.commands.convert import convert
from stacknorm.commands.evaluate import evaluate
from stacknorm.commands.predict import predict
from stacknorm.commands.train import train

app = typer.Typer(
    help="Label financial text with a stack of transformers: sentiment and topic, pooled and calibrated.\n\n"
    "Start with:  echo 'Acme cuts its outlook for the year' | stacknorm predict -",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(predict)
app.command()(evaluate)
app.command()(compare)
app.command()(train)
app.add_typer(bundle.app, name="bundle")
app.command()(convert)
