"""Run payments as a process."""

from services.payments.app import build
from services.payments.settings import Settings
from shared.run import run

if __name__ == "__main__":
    run(build, Settings)
