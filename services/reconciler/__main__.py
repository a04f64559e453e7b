"""Run the reconciler as a process."""

from services.reconciler.app import build
from services.reconciler.settings import Settings
from shared.run import run

if __name__ == "__main__":
    run(build, Settings)
