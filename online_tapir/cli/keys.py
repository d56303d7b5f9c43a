"""`online-tapir keys`: makes a key folder for each party, and adds the keys it trusts."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from online_tapir.wire import security

keys_app = App(name="keys", help="Keys that authenticate trackers, subscribers and controllers: new, trust.")

Folder = Annotated[Path, Parameter(help="Key folder of one party: a tracker, or a client.")]


@keys_app.command
def new(folder: Folder) -> None:
    """Make a key folder, named after its owner."""
    security.new_keys(folder)
    name = folder.resolve().name
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{folder / name}.key_secret  private, stays here")
    console.print(f"{folder / name}.key         public, for the others: `online-tapir keys trust THEIRS {name}.key`")
    console.print(f"{folder / security.PEERS}/  public keys of the others")


@keys_app.command
def trust(
    folder: Folder, public: Annotated[Path, Parameter(help="The other party's public key, a .key file.")]
) -> None:
    """Trust a client's key on a tracker, or the tracker's key on a client; applies to new connections."""
    copied = security.trust(folder, public)
    Console(highlight=False, soft_wrap=True).print(f"trusted: {copied}")
