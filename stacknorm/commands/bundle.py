"""`stacknorm bundle ...`: see, verify, fetch and make bundles."""

import typer

from stacknorm.commands.inspecting import fetch, list_bundles, show, verify
from stacknorm.commands.making import cascade, create, join

app = typer.Typer(help="See, verify, fetch and make bundles.", no_args_is_help=True, add_completion=False)
app.command("list")(list_bundles)
app.command()(show)
app.command()(verify)
app.command()(fetch)
app.command()(create)
app.command()(cascade)
app.command()(join)
