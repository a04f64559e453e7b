"""Run fulfillment as a process."""

from services.fulfillment.app import build
from services.fulfillment.settings import Settings
from shared.run import run

if __name__ == "__main__":
    run(build, Settings)
