"""Running the system: demo, up, down, status, logs."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import click

from deploy.cli.terminal import console, main_instance, say
from deploy.demo import payments as demonstration
from deploy.processes import Failed
from deploy.servers import Choice
from deploy.stack import Options, answers, running
from deploy.state import Instance, alive

DEFAULT_PORT = 8080
DEFAULT_SANDBOX_PORT = 8090
UP_TIMEOUT_SECONDS = 180.0
DOWN_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1

_docker = click.option("--docker", "use_docker", is_flag=True, help="Run Postgres and RabbitMQ in containers.")
_local = click.option("--use-local", is_flag=True, help="Use the servers on ports 5432 and 5672, in a database of our own.")


@click.command()
@click.option("--order", "order_file", type=click.Path(path_type=Path), help="A JSON file with an order; three ship in deploy/orders/.")
@click.option(
    "--provider",
    default="sandbox",
    show_default=True,
    type=click.Choice(sorted(demonstration.PAYERS)),
    help="Whom the order is paid with; stripe is simulated unless there is a test key in STRIPE_API_KEY.",
)
@_docker
@_local
def demo(order_file: Path | None, provider: str, use_docker: bool, use_local: bool) -> None:
    """Take an order from the rates to the export: quote, payment, label, tracking, tax."""
    order = demonstration.read_order(order_file)
    instance = main_instance()
    state = instance.stack()
    if state is not None:
        say("Using the system that is already up.")
        demonstration.run(state, order, provider, instance.folder)
        return
    options = Options(choice=Choice(use_docker=use_docker, use_local=use_local))
    with running(instance, options, say) as up:
        demonstration.run(up.state, order, provider, instance.folder)


interrupted = threading.Event()


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background; stop with ./tender down.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="The gateway's port; 0 for any.")
@click.option(
    "--sandbox-port", default=DEFAULT_SANDBOX_PORT, show_default=True, type=click.IntRange(0, 65535), help="The sandbox provider's port."
)
@click.option("--log-level", default="INFO", show_default=True, type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
@click.option("--otlp", default=lambda: os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""), help="Send traces to this OTLP/HTTP endpoint.")
@_docker
@_local
def up(detach: bool, port: int, sandbox_port: int, log_level: str, otlp: str, use_docker: bool, use_local: bool) -> None:
    """Keep the whole system running."""
    instance = main_instance()
    if instance.stack() is not None:
        raise Failed("It is already up; ./tender status shows it, ./tender down stops it.")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if detach:
        _detach(instance)
        return
    options = Options(
        choice=Choice(use_docker=use_docker, use_local=use_local),
        gateway_port=port,
        sandbox_port=sandbox_port,
        log_level=log_level,
        otlp_endpoint=otlp,
    )
    with running(instance, options, _say_unless_interrupted) as stack:
        _tell(instance)
        try:
            while all(process.running for process in stack.processes.values()):
                _go_on()
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return
        ended = next(name for name, process in stack.processes.items() if not process.running)
        raise Failed(f"{ended} ended by itself:\n{stack.processes[ended].tail()}")


def _interrupt(*_: object) -> None:
    # Python drops an exception that is raised while it forks or collects garbage; the event remains.
    interrupted.set()
    raise KeyboardInterrupt


def _go_on() -> None:
    if interrupted.is_set():
        raise KeyboardInterrupt


def _say_unless_interrupted(text: str) -> None:
    _go_on()
    say(text)


def _detach(instance: Instance) -> None:
    arguments = [a for a in sys.argv[1:] if a not in ("-d", "--detach")]
    log = instance.logs / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "deploy", *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        with console.status("Starting ..."):
            _await_stack(instance, child, log)
    except BaseException:
        # Nobody waits for it any longer: what is half started is put away by itself.
        child.terminate()
        child.wait()
        raise
    _tell(instance)


def _await_stack(instance: Instance, child: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + UP_TIMEOUT_SECONDS
    with log.open(errors="replace") as output:
        while instance.stack() is None:
            _go_on()
            _show_steps(output)
            if child.poll() is not None:
                raise Failed(output.read().strip().removeprefix("tender: ") or "It did not start.")
            if time.monotonic() > ends:
                raise Failed(f"It was not up after {UP_TIMEOUT_SECONDS:.0f} s and is stopped.")
            time.sleep(POLL_SECONDS)


def _show_steps(output: TextIO) -> None:
    """Show what the process in the background has said since the last look."""
    while line := output.readline():
        say(line.rstrip())


def _tell(instance: Instance) -> None:
    state = instance.stack()
    assert state is not None, "it was just started"
    item = '{"product_variant_id":"0192f0c1-7e00-7000-8000-000000000001","name":"Mug","quantity":2,"unit_price":1250,"weight_grams":400}'
    address = '{"name":"Ada","street_address":"Unter den Linden 1","postal_code":"10117","city":"Berlin","country_code":"DE"}'
    order = f'{{"currency":"EUR","items":[{item}],"shipping_address":{address}}}'
    click.echo(
        f"""
  gateway    {state.gateway_url}   (API documentation: {state.gateway_url}/docs)
  console    {state.gateway_url}/console   (sign in with the admin key, or the operator's for the whole installation)
  sandbox    {state.sandbox_url}
  admin key     {state.api_key}
  operator key  {state.operator_key}
  checkout key  {state.checkout_key}

Try it:

  curl -X PUT {state.gateway_url}/api/v1/admin/orders/0192f0c1-7e00-7000-8000-0000000000aa \\
       -H 'Authorization: Bearer {state.api_key}' -H 'Idempotency-Key: first' \\
       -H 'Content-Type: application/json' -d '{order}'

Stop with Ctrl-C, or ./tender down.
"""
    )


@click.command()
def down() -> None:
    """Stop the system that is up; its data stays."""
    state = main_instance().stack()
    if state is None:
        raise Failed("Nothing is up.")
    os.kill(state.pid, signal.SIGTERM)
    ends = time.monotonic() + DOWN_TIMEOUT_SECONDS
    with console.status("Stopping ..."):
        while alive(state.pid):
            if time.monotonic() > ends:
                raise Failed(f"Process {state.pid} has not stopped after {DOWN_TIMEOUT_SECONDS:.0f} s.")
            time.sleep(POLL_SECONDS)
    click.echo("Stopped.")


@click.command()
def status() -> None:
    """Show what is up and whether it is ready."""
    state = main_instance().stack()
    if state is None:
        raise Failed("Nothing is up; ./tender up starts it.")
    ready = True
    for name, probe in state.probes.items():
        well = answers(probe)
        ready = ready and well
        click.echo(f"{name:11} {'ready' if well else 'NOT READY':10} {probe:44} {state.urls.get(name, '')}".rstrip())
    if not ready:
        raise Failed("Not everything is ready; ./tender logs SERVICE tells more.")


@click.command()
@click.argument("service")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
def logs(service: str, follow: bool) -> None:
    """Show the log of a service, or of a server.

    One of gateway, payments, webhooks, fulfillment, reconciler, sandbox, postgres, rabbitmq, epmd.
    """
    folder = main_instance().logs
    file = folder / f"{service}.log"
    if not file.exists():
        there = ", ".join(sorted(f.stem for f in folder.glob("*.log"))) or "none yet"
        raise Failed(f"There is no log of {service!r}; there are: {there}.")
    with file.open(errors="replace") as stream:
        while True:
            line = stream.readline()
            if line:
                click.echo(line, nl=False)
            elif follow:
                time.sleep(POLL_SECONDS)
            else:
                return
