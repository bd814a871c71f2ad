"""Where the sources of compiled functions store conditionally to arrays of different width.

Numba 0.62 to 0.68 turns such a loop into wrong code for processors with AVX-512: the masks of the
narrower stores are wrong, so that some are lost and others made up. Two loops, or stores without a
condition, are right.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

DECORATORS = {"kernel", "inlined", "njit", "jit"}
WIDTHS = {"Float": 8, "FloatArray": 8, "Bool": 1, "float64": 8, "int64": 8, "float32": 4,
          "int32": 4, "bool_": 1, "int8": 1, "uint8": 1}  # fmt: skip


class Store(NamedTuple):
    """A store to an element of an array: its name, its width in bytes or None, if it is unknown."""

    array: str
    width: int | None
    conditional: bool


@dataclass
class Sources:
    """The compiled functions of some modules by name, and the widths of fields of their tuples."""

    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    fields: dict[str, int | None] = field(default_factory=dict)

    def add(self, source: str, every: bool = False) -> None:
        """Read a module: its compiled functions, or all of them."""
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and (every or _is_compiled(node)):
                self.functions[node.name] = node
            elif isinstance(node, ast.ClassDef):
                self.fields |= {
                    item.target.id: _width(item.annotation)
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }

    def mixed(self) -> list[str]:
        """``function:line`` of every innermost loop that must be written in another way."""
        found = []
        for name, function in self.functions.items():
            widths = self._widths(function)
            for loop in ast.walk(function):
                if not _is_loop(loop) or any(self._loops(part) for part in loop.body):  # type: ignore[attr-defined]
                    continue
                stores = set(self._stores(loop.body, widths, isinstance(loop, ast.While)))  # type: ignore[attr-defined]
                arrays = {(store.array, store.width) for store in stores}
                known = {width for _, width in arrays}
                mixed = len(arrays) > 1 and (len(known) > 1 or None in known)
                if mixed and any(store.conditional for store in stores):
                    found.append(f"{name}:{loop.lineno}")  # type: ignore[attr-defined]
        return found

    def _widths(self, function: ast.FunctionDef) -> dict[str, int | None]:
        """Widths of the arrays that a function has names for."""
        given = {one.arg: _width(one.annotation) for one in function.args.args if one.annotation}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    pairs = [(target, node.value)]
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                        pairs = list(zip(target.elts, node.value.elts, strict=True))
                    for one, value in pairs:
                        if isinstance(one, ast.Name) and isinstance(
                            value, ast.Subscript | ast.Attribute | ast.Name
                        ):
                            width = self._of(value, given)
                            known = given.get(one.id, width)
                            given[one.id] = width if width == known else None
        return given

    def _of(self, array: ast.expr, names: dict[str, int | None]) -> int | None:
        while isinstance(array, ast.Subscript):
            array = array.value
        if isinstance(array, ast.Attribute):
            return self.fields.get(array.attr)
        return names.get(array.id) if isinstance(array, ast.Name) else None

    def _loops(self, statement: ast.AST) -> bool:
        """Whether a statement is or calls a loop, which keeps the one around it scalar."""
        for node in ast.walk(statement):
            if _is_loop(node):
                return True
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called = self.functions.get(node.func.id)
                if called is not None and any(self._loops(part) for part in called.body):
                    return True
        return False

    def _stores(
        self, body: list[ast.stmt], widths: dict[str, int | None], conditional: bool
    ) -> Iterator[Store]:
        """The stores of a loop's body, those of the functions it calls included."""
        for statement in body:
            if isinstance(statement, ast.If):
                for branch in (statement.body, statement.orelse):
                    yield from self._stores(branch, widths, True)
            elif isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
                targets = (
                    statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                )
                for target in targets:
                    for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                        if isinstance(one, ast.Subscript):
                            yield Store(
                                ast.unparse(one.value), self._of(one.value, widths), conditional
                            )
            for node in ast.walk(statement) if not isinstance(statement, ast.If) else ():
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    called = self.functions.get(node.func.id)
                    if called is not None:
                        inner = self._stores(called.body, self._widths(called), conditional)
                        yield from (
                            one._replace(array=f"{called.name}.{one.array}") for one in inner
                        )
            leaves = (ast.Continue, ast.Break, ast.Return)
            conditional |= any(isinstance(node, leaves) for node in ast.walk(statement))


def _is_loop(node: ast.AST) -> bool:
    return isinstance(node, ast.For | ast.While)


def _is_compiled(function: ast.FunctionDef) -> bool:
    calls = [one.func if isinstance(one, ast.Call) else one for one in function.decorator_list]
    return bool(DECORATORS & {_name(one) for one in calls})


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _width(annotation: ast.expr | None) -> int | None:
    names = (_name(node) for node in ast.walk(annotation)) if annotation else ()
    return next((WIDTHS[name] for name in names if name in WIDTHS), None)
