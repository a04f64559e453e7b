"""Run the gateway as a process."""

from services.gateway.app import build
from services.gateway.settings import Settings
from shared.run import run

if __name__ == "__main__":
    run(build, Settings)
