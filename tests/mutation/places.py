"""Places in the code where a mistake can be made: found in the syntax tree, written as a replacement of bytes."""

import ast
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tests.mutation import sql

SWAPPED = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
WRITTEN = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
# Arguments that bind a text, a key or an answer to where it belongs, in calls of these names.
BINDINGS = frozenset({"associated", "binding", "context", "owner", "place", "purpose", "where"})
SEALING = re.compile(r"seal|unseal|open|wrap|unwrap|encrypt|decrypt|digest|derive|hash", re.IGNORECASE)
HIDING = re.compile(r"seal$|hash|digest|escape|quote|mask|redact", re.IGNORECASE)
# What is only written down for people to read changes nothing that a test should insist on.
ONLY_WRITTEN = re.compile(r"^(await )?(logger|logging|telemetry|warnings|say|click\.echo|self\._say)\b")


class Mutation(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake: which bytes of a file become which, on which line, in which function."""

    path: str
    line: int
    function: str
    kind: str
    start: int
    end: int
    before: str
    after: str
    # Which of those that are alike in its function.
    number: int = 1

    @property
    def key(self) -> str:
        """Name it so that changes elsewhere in the file leave the name as it is."""
        text = "\n".join((self.path, self.function, self.kind, self.before, self.after, str(self.number)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def applied_to(self, source: bytes) -> bytes:
        """Make the mistake."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutations_of(root: Path, path: Path) -> list[Mutation]:
    """Find every mistake that the operators know for a file, in the order of the file."""
    source = path.read_bytes()
    finder = _Finder(path.relative_to(root).as_posix(), source)
    finder.visit(ast.parse(source))
    unique = {(each.start, each.end, each.after): each for each in finder.found}
    found = sorted(unique.values(), key=lambda each: (each.start, each.end, each.after))
    seen: Counter[str] = Counter()
    numbered = []
    for each in found:
        seen[each.key] += 1
        numbered.append(msgspec.structs.replace(each, number=seen[each.key]))
    return numbered


class _Finder(ast.NodeVisitor):
    def __init__(self, path: str, source: bytes) -> None:
        self._path, self._source = path, source
        self._lines = [0]
        for line in source.split(b"\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)
        self._functions: list[str] = []
        self.found: list[Mutation] = []

    # Where something is

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None, "ast.parse sets it"
        assert node.end_col_offset is not None, "ast.parse sets it"
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _add(self, kind: str, start: int, end: int, after: str) -> None:
        line = self._source.count(b"\n", 0, start) + 1
        before = self._source[start:end].decode()
        function = ".".join(self._functions)
        self.found.append(
            Mutation(path=self._path, line=line, function=function, kind=kind, start=start, end=end, before=before, after=after)
        )

    def _replace(self, kind: str, node: ast.expr | ast.stmt, after: str) -> None:
        self._add(kind, *self._span(node), after)

    # Functions

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._functions.append(node.name)
        # Annotations and defaults are not gone through: a type is no behaviour.
        for decorator in node.decorator_list:
            self.visit(decorator)
        yes_or_no = isinstance(node.returns, ast.Name) and node.returns.id == "bool"
        for statement in ast.walk(node) if yes_or_no else ():
            if isinstance(statement, ast.Return) and statement.value is not None and not isinstance(statement.value, ast.Constant):
                self._replace("a check that always holds", statement.value, "True")
        self._body(node.body)
        self._functions.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    # Statements

    def _body(self, body: Sequence[ast.stmt]) -> None:
        for before, after in itertools.pairwise(body):
            if _awaited(before) and _awaited(after):
                start, end = self._span(before)[0], self._span(after)[1]
                between = self._source[self._span(before)[1] : self._span(after)[0]].decode()
                self._add("two steps in the other order", start, end, self._text(after) + between + self._text(before))
        for statement in body:
            self.visit(statement)

    def generic_visit(self, node: ast.AST) -> None:
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._body(value)
            elif isinstance(value, list):
                for each in value:
                    if isinstance(each, ast.AST):
                        self.visit(each)
            elif isinstance(value, ast.AST):
                self.visit(value)

    def visit_Expr(self, node: ast.Expr) -> None:
        called = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(called, ast.Call) and not ONLY_WRITTEN.match(self._text(node)):
            self._replace("a step left out", node, "pass")
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.body[-1], ast.Raise | ast.Return | ast.Continue | ast.Break):
            self._replace("a guard that never acts", node.test, "False")
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """An assertion says what cannot be otherwise; no test can make it fail."""

    # Expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            start, end = self._span(left)[1], self._span(right)[0]
            between = self._source[start:end].decode()
            after = re.sub(rf"(?<![\w=<>!]){re.escape(WRITTEN[type(operator)])}(?![\w=<>])", SWAPPED[type(operator)], between, count=1)
            if after != between:
                self._add("another comparison", start, end, after)
            if isinstance(operator, ast.In) and _name(right).isupper():
                self._replace("an allow-list widened", node, "True")
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        neutral = "True" if isinstance(node.op, ast.And) else "False"
        for value in node.values:
            self._replace("a condition left out", value, neutral)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace("the contrary", node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        signs = {ast.Add: ("+", "-"), ast.Sub: ("-", "+")}
        if type(node.op) in signs and not isinstance(node.left, ast.Constant | ast.JoinedStr | ast.List | ast.Tuple):
            sign, other = signs[type(node.op)]
            start, end = self._span(node.left)[1], self._span(node.right)[0]
            self._add("another sign", start, end, self._source[start:end].decode().replace(sign, other, 1))
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self._replace("a list widened", condition, "True")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._replace("always the second", node.test, "False")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            self._replace("the other end", node.func, "max" if node.func.id == "min" else "min")
        for keyword in node.keywords:
            if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, bool):
                self._replace("the contrary", keyword.value, str(not keyword.value.value))
            if keyword.arg in ("before_request", "guards"):
                self._replace("a role dropped", keyword.value, "None")
        if SEALING.search(self._text(node.func)):
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                if _name(argument) in BINDINGS:
                    self._replace("a binding emptied", argument, f"type({self._text(argument)})()")
        if HIDING.search(self._text(node.func)) and node.args:
            self._replace("kept in the clear", node, self._text(node.args[0]))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._sql(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._sql(node)
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value.value)

    def _sql(self, node: ast.Constant | ast.JoinedStr) -> None:
        start, _ = self._span(node)
        text = self._text(node)
        for kind, first, last, after in sql.mistakes(text):
            begin = start + len(text[:first].encode())
            self._add(kind, begin, begin + len(text[first:last].encode()), after)


def _awaited(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Await)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def source_files(root: Path, under: Sequence[str]) -> Iterator[Path]:
    """Give the files in which mistakes are made: what runs, without the messages' shapes."""
    for each in under:
        path = root / each
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if "contracts" not in file.relative_to(root).parts:
                yield file
