"""The table in Markdown, with what it does not say."""

from collections.abc import Sequence

from tests.platforms.trials import RowResult, Verdict

HEADINGS = ("system", "Python", "RabbitMQ", "Postgres", "servers", "who, where", "demo", "suite")
NOTES = """\
- Servers `own`: the embedded Postgres and the RabbitMQ that `./tender` fetches without root. `system`: Debian's packages, given by URL.
- In a chroot the kernel refuses new user namespaces, so the rows of root are also those of a container without user namespaces.
- The demo's time includes the installation of its Python packages and servers.
- Not to be had from Debian's releases, and so not tried here: Python 3.12; RabbitMQ 3.11 to 3.13, 4.1 and 4.2; Postgres 16."""


def markdown(results: Sequence[RowResult]) -> str:
    """Draw the table, the tests that failed, and the notes."""
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS)), *(_line(_cells(result)) for result in results)]
    failed = [f"- {result.name}: `{test}`" for result in results if result.suite for test in result.suite.failed_tests]
    return "\n".join([*lines, "", *(["Failed tests:", "", *failed, ""] if failed else []), NOTES, ""])


def _cells(result: RowResult) -> tuple[str, ...]:
    demo = f"not run: {result.trouble}" if result.trouble else _said(result.demo)
    versions = (result.python, result.rabbitmq, result.postgres)
    return (result.system, *versions, result.servers, result.location, demo, _said(result.suite))


def _said(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not run"
    return verdict.text if verdict.passed else f"**failed**: {verdict.text}"


def _line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
