"""The command line: what goes wrong is one clear message and a non-zero exit."""

import os
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.cli.running import POLL_SECONDS, UP_TIMEOUT_SECONDS
from deploy.state import ROOT
from shared.version import version

# More than any command gives itself: one that takes too long says so, and over what.
TIMEOUT_SECONDS = UP_TIMEOUT_SECONDS + 60.0


def tender(*arguments: str, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(home), **settings}
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=env, timeout=TIMEOUT_SECONDS, check=False)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "deploy", *arguments]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TENDER_HOME": str(home), "PYTHONPATH": str(ROOT)}


def running_for(home: Path) -> list[int]:
    """Find the processes that were started with a folder as theirs."""
    mine = f"TENDER_HOME={home}".encode()
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and mine in _environ(each)]


def _environ(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--nonsense"], "No such option"),
            (["nonsense"], "No such command"),
            (["demo", "--order", "/nowhere.json"], "/nowhere.json cannot be read"),
            (["down"], "Nothing is up"),
            (["status"], "Nothing is up"),
            (["logs", "nobody"], "There is no log of 'nobody'"),
            (["keys", "create", "--role", "king", "--name", "x"], "'king' is not one of"),
            (["topology", "--amqp-url", "amqp://guest:guest@127.0.0.1:1/"], "the broker cannot be reached"),
        ],
    )
    def test_are_one_line_and_a_non_zero_exit(self, tmp_path: Path, arguments: list[str], said: str) -> None:
        done = tender(*arguments, home=tmp_path)

        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("tender: ")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("{", "is not JSON"),
            ('{"currency":"EUR"}', "is not an order: Object missing required field `items`"),
            ('{"nonsense":1}', "unknown field"),
        ],
    )
    def test_of_an_order_name_the_file_and_why(self, tmp_path: Path, content: str, said: str) -> None:
        file = tmp_path / "order.json"
        file.write_text(content)

        done = tender("demo", "--order", str(file), home=tmp_path)

        assert done.returncode == 1
        assert str(file) in done.stderr
        assert said in done.stderr

    def test_of_a_busy_port_name_the_port(self, tmp_path: Path) -> None:
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()

            port = busy.getsockname()[1]
            done = tender("up", "--port", str(port), home=tmp_path)

        assert done.returncode == 1
        assert f"Port {port} is in use" in done.stderr
        assert "--port" in done.stderr

    def test_of_a_live_key_come_before_anything_is_started(self, tmp_path: Path) -> None:
        done = tender("demo", "--provider", "stripe", home=tmp_path, STRIPE_API_KEY="sk_live_nonsense")

        assert done.returncode == 1
        assert done.stderr.startswith("tender: STRIPE_API_KEY is not a key for tests")
        assert "sk_live_nonsense" not in done.stdout + done.stderr


class TestServersThatRefuse:
    """A password that is wrong, misplaced or malformed is never shown; the host and the reason are."""

    @pytest.mark.parametrize(
        ("database_url", "said"),
        [
            ("x", "Postgres at a URL without ://: invalid DSN"),
            ("mysql://u:s3cret@db.example/x", "Postgres at db.example: invalid DSN"),
            ("postgresql://u:s3cret@db.example:port/x", "Postgres at db.example:…: the URL cannot be read"),
            ("postgresql://u:a@s3cret@:x/y", "the URL cannot be read"),
            ("postgresql://u:s3cret@nowhere.invalid/x", "Postgres at nowhere.invalid: "),
            ("postgresql://u:s3cret@127.0.0.1:1/x", "Postgres at 127.0.0.1:1: "),
            ("{user}:s3cret@{host}/postgres", "password authentication failed for user"),
            ("{owner}/nosuch", 'database "nosuch" does not exist'),
            ("{owner}/postgres?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "sslrootcert=/nowhere/ca.pem"),
            ("{owner}/postgres?sslmode=require", "SSL"),
            ("{owner}/postgres?sslmode=nonsense", "sslmode"),
        ],
    )
    def test_postgres(self, tmp_path: Path, database_server: str, broker: tuple[str, str | None], database_url: str, said: str) -> None:
        owner = urlsplit(database_server)
        host = owner.netloc.rpartition("@")[2]
        url = database_url.format(owner=f"postgresql://{owner.netloc}", user=f"postgresql://{owner.username}", host=host)

        done = tender("migrate", home=tmp_path, DATABASE_URL=url, AMQP_URL=broker[0], SERVICES_PASSWORD="services")

        _is_one_line(done, said, owner.password)
        if "{" in database_url:
            assert f"Postgres at {host}: " in done.stderr

    @pytest.mark.parametrize(
        ("amqp_url", "said"),
        [
            ("x", "RabbitMQ at a URL without ://: "),
            ("amqp://u:s3cret@broker.example:port/", "RabbitMQ at broker.example:…: the URL cannot be read"),
            ("amqp://u:s3cret@nowhere.invalid/", "RabbitMQ at nowhere.invalid: "),
            ("amqp://u:s3cret@127.0.0.1:1/", "RabbitMQ at 127.0.0.1:1: "),
            ("amqp://{user}:s3cret@{host}/", "ACCESS_REFUSED"),
            ("{admin}/nosuch", "the virtual host 'nosuch'"),
            ("amqps://{user}:s3cret@{host}/?cafile=/nowhere/ca.pem", "cafile=/nowhere/ca.pem"),
        ],
    )
    def test_rabbitmq(self, tmp_path: Path, broker: tuple[str, str | None], amqp_url: str, said: str) -> None:
        admin = urlsplit(broker[0])
        host = admin.netloc.rpartition("@")[2]
        url = amqp_url.format(admin=f"amqp://{admin.netloc}", user=admin.username, host=host)

        done = tender("topology", home=tmp_path, AMQP_URL=url)

        _is_one_line(done, said.format(host=host), None)

    @pytest.mark.parametrize(
        ("management_url", "said"),
        [
            ("x", "RabbitMQ's management API at a URL without ://: "),
            ("http://u:s3cret@broker.example:port", "RabbitMQ's management API at broker.example:…: the URL cannot be read"),
            ("http://u:s3cret@127.0.0.1:1", "RabbitMQ's management API at 127.0.0.1:1: "),
            ("http://{user}:s3cret@{host}", "RabbitMQ's management API at {host}: it answered 401"),
        ],
    )
    def test_rabbitmqs_management(self, tmp_path: Path, broker: tuple[str, str | None], management_url: str, said: str) -> None:
        assert broker[1] is not None, "the tests' broker has a management API"
        admin = urlsplit(broker[1])
        host = admin.netloc.rpartition("@")[2]
        url = management_url.format(user=admin.username, host=host)

        done = tender("broker-users", home=tmp_path, RABBITMQ_MANAGEMENT_URL=url, SERVICES_PASSWORD="services")

        _is_one_line(done, said.format(host=host), None)


def _is_one_line(done: subprocess.CompletedProcess[str], said: str, password: str | None) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("tender: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert said in done.stderr
    for secret in ("s3cret", password):
        assert secret is None or secret not in done.stderr + done.stdout


class TestHelp:
    def test_reads_well(self, tmp_path: Path) -> None:
        done = tender("--help", home=tmp_path)

        assert done.returncode == 0
        for command in ("demo", "up", "down", "status", "logs", "test", "check", "mutate", "bench", "soak", "seed", "keys"):
            assert f"  {command}" in done.stdout

    def test_names_the_version(self, tmp_path: Path) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

        assert tender("--version", home=tmp_path).stdout == f"tender {project['version']}\n"


# What a first start says, one line each; the next says how long it took.
STEPS = ["Postgres", "RabbitMQ", "Schemas, roles and queues", "Store", "Services"]


class TestSystem:
    def test_goes_up_shows_its_state_runs_the_demo_and_goes_down(self, tmp_path: Path) -> None:
        up = tender("up", "-d", "--port", "0", "--sandbox-port", "0", home=tmp_path)
        try:
            status = tender("status", home=tmp_path)
            key = tender("keys", "create", "--role", "checkout", "--name", "storefront", home=tmp_path)
            demo = [
                tender("demo", "--order", str(ROOT / "deploy/orders" / name), home=tmp_path)
                for name in ("plain.json", "discounts.json", "yen.json")
            ]
            by_stripe = tender("demo", "--provider", "stripe", home=tmp_path)
            logs = tender("logs", "payments", home=tmp_path)
        finally:
            down = tender("down", home=tmp_path)

        assert up.returncode == 0, up.stderr
        steps = [line.partition(":")[0] for line in up.stderr.splitlines() if not line.startswith(" ")]
        assert steps[:5] == STEPS, up.stderr
        assert "curl" in up.stdout
        assert status.stdout.count(" ready ") == 6
        assert key.stdout.startswith("tender_sandbox_")
        assert [d.returncode for d in demo] == [0, 0, 0], [d.stderr for d in demo]
        assert "JPY" in demo[2].stdout
        assert by_stripe.returncode == 0, by_stripe.stderr
        assert "payment_intent.succeeded" in by_stripe.stdout
        assert '"message":"concluded"' in logs.stdout
        assert f'"version":"{version()}"' in logs.stdout
        assert (down.returncode, down.stdout.strip()) == (0, "Stopped.")
        assert tender("status", home=tmp_path).returncode == 1

    def test_that_is_no_longer_waited_for_is_put_away(self, tmp_path: Path) -> None:
        log = tmp_path / "main" / "logs" / "up.log"
        try:
            with subprocess.Popen(command("up", "-d", "--port", "0", "--sandbox-port", "0"), env=environment(tmp_path)) as up:
                while not (log.exists() and "Postgres" in log.read_text()):
                    assert up.poll() is None
                    time.sleep(POLL_SECONDS)
                assert len(running_for(tmp_path)) > 1
                up.terminate()
            left = running_for(tmp_path)
        finally:
            tender("down", home=tmp_path)

        assert up.returncode == 1
        assert left == []

    def test_stops_also_where_python_drops_the_interruption(self, tmp_path: Path) -> None:
        """docs.python.org/3/library/signal.html: an exception of a handler may come anywhere, and is ignored while a process forks."""
        script = (
            "import os, signal, sys\n"
            "def once():\n"
            "    if not done:\n"
            "        done.append(1)\n"
            "        os.kill(os.getpid(), signal.SIGTERM)\n"
            "done = []\n"
            "from deploy.cli import main\n"
            "import deploy.cli.running\n"
            "os.register_at_fork(after_in_parent=once)\n"
            "sys.argv = ['tender', 'up', '--port', '0', '--sandbox-port', '0']\n"
            "main()\n"
        )

        up = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(tmp_path),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

        assert "Exception ignored in" in up.stderr
        assert up.returncode == 1
        assert running_for(tmp_path) == []
