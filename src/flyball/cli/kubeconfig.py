"""``flyball kubeconfig``."""

from pathlib import Path

import click

from flyball.cli.options import data_dir_option
from flyball.errors import ConfigError


@click.command("kubeconfig", epilog='Example: export KUBECONFIG="$(flyball kubeconfig --path)"')
@data_dir_option
@click.option("--path", "print_path", is_flag=True, help="Print the file's path in place of its text.")
def command(data_dir: Path, print_path: bool) -> None:
    """Print the kubeconfig of the embedded cluster."""
    path = data_dir / "kubeconfig"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; run flyball up first, or name its --data-dir")
    click.echo(str(path) if print_path else path.read_text(), nl=print_path)
