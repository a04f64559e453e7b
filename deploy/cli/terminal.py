"""What every command needs: whom to tell, and which instance it speaks of."""

import os
from pathlib import Path

from rich.console import Console

from deploy.state import ROOT, Instance

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Tell the person at the terminal how it goes."""
    # One line a step, which the terminal breaks where it is narrow, not we.
    console.print(text, style="dim", soft_wrap=True)


def home() -> Path:
    """Where everything we make lies."""
    return Path(os.environ.get("TENDER_HOME", ROOT / ".tender"))


def main_instance() -> Instance:
    """The instance that up, demo, status and down speak of."""
    return Instance(home(), "main")
