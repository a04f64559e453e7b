"""Run webhooks as a process."""

from services.webhooks.app import build
from services.webhooks.settings import Settings
from shared.run import run

if __name__ == "__main__":
    run(build, Settings)
