"""Postgres as we use it: pools without session state, writes in one round trip, and group commit for what arrives together."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import asyncpg
import asyncpg.pool
import msgspec

from shared import telemetry
from shared.dependencies import Misconfigured, certificate_trouble, reason_of
from shared.errors import Contended, Unavailable

logger = logging.getLogger(__name__)

ACQUIRE_TIMEOUT_SECONDS = 10.0
COMMAND_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 5.0
# How long connections are kept in hand before the library's pool sees them again.
IN_HAND_SECONDS = 10.0
CACHED_STATEMENTS = 200
# Those of `migrate`, the command line and people.
OTHER_CONNECTIONS = 5
GROUP_ROWS_MAX = 200
# Whole writes hold their locks until the last of their group is carried out.
GROUP_WRITES_MAX = 32
# How often a transaction that the database undid because of others is tried at once.
CONTENDED_ATTEMPTS_MAX = 4

T = TypeVar("T")
R = TypeVar("R")

if TYPE_CHECKING:
    _AnyConnection = asyncpg.Connection[asyncpg.Record]
else:
    _AnyConnection = asyncpg.Connection  # Generic only for type checkers.

Record: TypeAlias = asyncpg.Record
_Lent: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

# Like a connection's own: SQL and its arguments, for a row or nothing.
FetchRow: TypeAlias = Callable[..., Awaitable[Record | None]]

# The login: a wrong password, a role that pg_hba.conf does not let in, a database that does not exist, an address that makes no sense.
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.exceptions.ClientConfigurationError,
)
SILENT = (
    # In a process that runs, the login is being changed or the database replaced; in one that starts, waiting does not mend it.
    *REFUSED,
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # Shutting down, starting up, crashed, cancelled by an administrator.
    asyncpg.OperatorInterventionError,
    # Out of connections, memory or disk.
    asyncpg.InsufficientResourcesError,
    # A failover left us on the standby.
    asyncpg.ReadOnlySQLTransactionError,
    # What asyncpg says when a connection was cut while a statement was being prepared.
    asyncpg.InternalClientError,
)


class _StatelessConnection(_AnyConnection):
    """A connection that keeps no session state, so that releasing it needs no round trip."""

    def get_reset_query(self) -> str:
        return ""


class Pool:
    """Connections to a database: taken and given back without a task, a timer or a round trip, which cost as much as a statement does.

    The library's pool makes and limits them; what is given back is kept in hand for the next, unless somebody waits.
    """

    def __init__(self, made: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._made = made
        self._in_hand: list[_Lent] = []
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._letting_go: set[asyncio.Task[None]] = set()
        self._closing = False

    async def take(self) -> _Lent:
        """Take a connection, which has to be given back; raises what is in SILENT."""
        while self._in_hand:
            connection = self._in_hand.pop()
            if not _lost(connection):
                return connection
            await self._made.release(connection)
        self._waiting += 1
        try:
            return await self._made.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        finally:
            self._waiting -= 1

    async def give_back(self, connection: _Lent, *, sound: bool) -> None:
        """Give a connection back; one on which something went wrong is looked after by the library."""
        if sound and not self._waiting and not self._closing and not _lost(connection):
            self._in_hand.append(connection)
            self._timer = self._timer or asyncio.get_running_loop().call_later(IN_HAND_SECONDS, self._let_go)
        else:
            await self._made.release(connection)

    def _let_go(self) -> None:
        # What is not in use now and then goes back, so that the library can close what is old or idle.
        self._timer = None
        task = asyncio.create_task(self._release_all())
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def _release_all(self) -> None:
        while self._in_hand:
            with suppress(*SILENT):
                await self._made.release(self._in_hand.pop())

    async def close(self) -> None:
        """Close every connection once it was given back."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        await self._release_all()
        await self._made.close()

    async def renew(self) -> None:
        """Have every connection replaced by a new one, whose session begins with what its role's settings are now."""
        await self._release_all()
        await self._made.expire_connections()

    def terminate(self) -> None:
        """Close every connection at once."""
        self._made.terminate()


async def open_pool(url: str, *, connections: int, cached_statements: int | None = None) -> Pool:
    """Open a pool; by default statements are cached unless a pooler is in between. Raises Misconfigured, or what is in SILENT."""
    if cached_statements is None:
        cached_statements = await _cacheable_statements(url, connections)
    return Pool(
        await _refused_for_good(
            asyncpg.create_pool(
                url,
                min_size=1,
                max_size=connections,
                connection_class=_StatelessConnection,
                command_timeout=COMMAND_TIMEOUT_SECONDS,
                timeout=CONNECT_TIMEOUT_SECONDS,
                statement_cache_size=cached_statements,
                init=_watch,
            )
        )
    )


async def _cacheable_statements(url: str, connections: int) -> int:
    # A pooler in transaction mode (PgBouncer before 1.21, or with max_prepared_statements = 0) gives the next transaction another
    # session, which knows nothing of a statement prepared before. It answers for a process that is not the one that works.
    connection = await _refused_for_good(asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS, statement_cache_size=0))
    try:
        pooled = await connection.fetchval("SELECT pg_backend_pid()", timeout=COMMAND_TIMEOUT_SECONDS) != connection.get_server_pid()
        limit = int(await connection.fetchval(_USABLE_CONNECTIONS, timeout=COMMAND_TIMEOUT_SECONDS))
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
    facts = {
        "connections_max": connections,
        "usable_connections": limit,
        "processes_that_fit": (limit - OTHER_CONNECTIONS) // connections,
        "pooler_in_between": pooled,
    }
    telemetry.say(logger, logging.INFO, "database connections", facts)
    return 0 if pooled else CACHED_STATEMENTS


# reserved_connections is new in Postgres 16.
_USABLE_CONNECTIONS = """
    SELECT current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0)
    """


async def _refused_for_good(connecting: Awaitable[T]) -> T:
    try:
        return await connecting
    except REFUSED as wrong:
        raise Misconfigured(reason_of(wrong)) from wrong
    except SILENT as silent:
        if (wrong_certificate := certificate_trouble(silent)) is not None:
            raise Misconfigured(wrong_certificate) from silent
        raise
    except (asyncpg.PostgresError, ValueError, IndexError) as wrong:
        # No right to connect, a parameter that the server does not know, an address that cannot be read: what of it may be a password?
        said = reason_of(wrong) if isinstance(wrong, asyncpg.PostgresError) else "the address cannot be read"
        raise Misconfigured(said) from None


async def _watch(connection: Connection) -> None:
    if telemetry.tracing():
        connection.add_query_logger(telemetry.record_query)


def _lost(connection: _Lent) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # Once it has seen a connection end, the library does not let us ask any more.


class Borrowed:
    """A connection while inside."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> _Lent:
        try:
            self._connection = await self._pool.take()
        except SILENT as silent:
            raise Unavailable(f"database: {type(silent).__name__}: {silent}") from silent
        return self._connection

    async def __aexit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        try:
            await self._pool.give_back(self._connection, sound=error is None)
        except SILENT as silent:
            if error is None:
                raise Unavailable(f"database: {type(silent).__name__}: {silent}") from silent
        if isinstance(error, asyncpg.TransactionRollbackError):
            raise Contended(f"database: {type(error).__name__}: {error}") from error
        if isinstance(error, SILENT):
            raise Unavailable(f"database: {type(error).__name__}: {error}") from error


def connected(pool: Pool) -> Borrowed:
    """Borrow a connection; a database that cannot be reached is Unavailable, one where others were in the way Contended."""
    return Borrowed(pool)


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Run statements as one; commits at the end, rolls back on any exception."""
    async with connected(pool) as connection, connection.transaction():
        yield connection


async def each_there(db: Connection, table: str, *columns: str) -> list[Record]:
    """List which values some columns of a table have together, without reading all of it: each is found behind the one before.

    Needs an index that begins with the columns, whose names and the table's are the program's own.
    """
    names, first = ", ".join(columns), ", ".join(f"known.{column}" for column in columns)
    return await db.fetch(
        f"""
        WITH RECURSIVE known AS (
          (SELECT {names} FROM {table} ORDER BY {names} LIMIT 1)
           UNION ALL
          SELECT following.*
            FROM known
           CROSS JOIN LATERAL (SELECT {names} FROM {table} WHERE ({names}) > ({first}) ORDER BY {names} LIMIT 1) AS following)
        SELECT {names} FROM known
        """
    )


async def each_row(db: Connection, sql: str, items: Sequence[tuple[Any, ...]]) -> list[Record]:
    """Carry a statement that has one row as its result out once for each item, in their order, as one transaction."""
    # Sent together: one is not written without the others, nor waits for another's commit.
    rows = await db.fetch(sql, *items[0]) if len(items) == 1 else await db.fetchmany(sql, items)
    assert len(rows) == len(items), "each has one row as its result"
    return rows


class Statement(msgspec.Struct, frozen=True):
    """A part of a write: its SQL with placeholders from $1 on, and their values.

    `must` says that it has to touch exactly one row, or as many as `rows` gives (an expression over its placeholders);
    `gives` names a column that it returns and that is wanted.
    """

    sql: str
    arguments: tuple[Any, ...]
    must: bool = False
    gives: str = ""
    rows: str = "1"


@lru_cache(maxsize=256)
def _combined(parts: tuple[tuple[str, int, bool, str, str], ...]) -> str:
    names, held, given, offset = [], [], [], 0
    for number, (sql, count, must, gives, rows) in enumerate(parts):
        move = partial(_moved, offset)
        names.append(f"s{number} AS ({_PLACEHOLDER.sub(move, sql)})")
        if must:
            held.append(f"(SELECT count(*) FROM s{number}) = {_PLACEHOLDER.sub(move, rows)}")
        if gives:
            given.append(f", (SELECT {gives} FROM s{number}) AS g{number}")
        offset += count
    # The conditions stand in the main query, which is carried out before the changes that nobody asks a result of.
    return f"WITH {', '.join(names)} SELECT must({' AND '.join(held) or 'true'}){''.join(given)}"


def _moved(offset: int, placeholder: "re.Match[str]") -> str:
    return f"${int(placeholder[1]) + offset}"


_PLACEHOLDER = re.compile(r"\$(\d+)")


class Rows:
    """Carries statements out that have one row as their result; what piled up of one shape travels as one transaction."""

    def __init__(self, pool: Pool, *, pause_seconds: float = 0.0) -> None:
        self._pool = pool
        # Where nobody waits for the result, a pause lets more pile up.
        self._pause_seconds = pause_seconds
        self._groups: dict[str, GroupCommit[tuple[Any, ...], Record]] = {}

    async def one(self, sql: str, *arguments: Any) -> Record:
        """Carry a statement out; its text must be one of few."""
        group = self._groups.get(sql)
        if group is None:
            group = self._groups[sql] = GroupCommit(
                partial(self._flush, sql), items_max=GROUP_WRITES_MAX, pause_seconds=self._pause_seconds
            )
        return await group.submit(arguments)

    async def write(self, statements: Sequence[Statement]) -> list[Any]:
        """Write everything or nothing in one round trip; returns what was wanted of each statement that gives something.

        The statements see what was there before, not each other's rows, and no two may change one row. Raises Contended when
        one that must touch a row does not: somebody else was faster, and the decision has to be made anew.
        """
        sql = _combined(tuple((s.sql, len(s.arguments), s.must, s.gives, s.rows) for s in statements))
        row = await self.one(sql, *(argument for s in statements for argument in s.arguments))
        return list(row)[1:]

    async def _flush(self, sql: str, items: list[tuple[Any, ...]]) -> list[Record]:
        async with connected(self._pool) as db:
            return await each_row(db, sql, items)


class GroupCommit(Generic[T, R]):
    """Carry out what piled up during the last flush as one; a poisoned item falls back to one by one.

    Nobody waits for a timer, unless nobody waits for the result: then a pause lets more pile up.
    """

    def __init__(
        self, flush: Callable[[list[T]], Awaitable[Sequence[R]]], *, items_max: int = GROUP_ROWS_MAX, pause_seconds: float = 0.0
    ) -> None:
        self._flush = flush
        self._items_max = items_max
        self._pause_seconds = pause_seconds
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None
        self._full: asyncio.Event | None = None

    async def submit(self, item: T) -> R:
        """Hand in one item; returns its result once its group is committed."""
        return await self._handed_in(item)

    async def submit_all(self, items: Sequence[T]) -> list[R]:
        """Hand in items that belong together, so that they share a group where there is room; returns their results."""
        return await asyncio.gather(*map(self._handed_in, items))

    def _handed_in(self, item: T) -> "asyncio.Future[R]":
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._full is not None and len(self._waiting) >= self._items_max:
            self._full.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return future

    async def _drain(self) -> None:
        while self._waiting:
            if self._pause_seconds and len(self._waiting) < self._items_max:
                await self._pause()
            batch = self._waiting[: self._items_max]
            del self._waiting[: len(batch)]
            await self._carry_out(batch)

    async def _pause(self) -> None:
        """Wait for more, but not for more than are carried out together."""
        self._full = asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._full.wait(), self._pause_seconds)
        self._full = None

    async def _carry_out(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except Exception as failure:
            await self._one_by_one(batch, failure)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _one_by_one(self, batch: list[tuple[T, "asyncio.Future[R]"]], failure: Exception) -> None:
        contended = isinstance(failure, Contended)
        if len(batch) == 1 or (isinstance(failure, Unavailable) and not contended):
            for _, future in batch:
                if not future.done():
                    future.set_exception(failure)
        else:
            await asyncio.gather(*(self._carry_out([single]) for single in batch))
