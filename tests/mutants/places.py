"""Which changes there are: one mutant a place, in an order that a seed decides and an edit elsewhere leaves alone."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cosmic_ray.ast
import cosmic_ray.plugins
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_item import MutationSpec

from tests.environment import REPOSITORY
from tests.mutants import operators

Range = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Mutant:
    """One change. `file` is relative to the repository, `line` counts from 1; `nth` tells equal lines apart."""

    file: str
    operator: str
    inside: str
    text: str
    nth: int
    spec: MutationSpec

    @property
    def line(self) -> int:
        return int(self.spec.start_pos[0])

    @property
    def id(self) -> str:
        """Stays while the line and its function do, whatever is written above or below."""
        parts = (self.file, self.operator, self.inside, self.text, str(self.nth))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    @property
    def place(self) -> tuple[str, int, int]:
        return self.file, *self.spec.start_pos

    def order(self, seed: int) -> str:
        """Mutants sorted by this are in the order of their draw."""
        return hashlib.sha256(f"{seed} {self.id}".encode()).hexdigest()

    def code(self) -> str:
        """The whole file with this change."""
        operator = cosmic_ray.plugins.get_operator(self.operator)()
        changed = mutate_code((REPOSITORY / self.file).read_text(), operator, self.spec.occurrence)
        assert changed is not None, f"{self} has nothing to change"
        return str(changed)

    def change(self) -> tuple[str, str]:
        """The lines that differ, before and after, without indentation."""
        before, after = ((REPOSITORY / self.file).read_text().splitlines(), self.code().splitlines())
        start = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), 0)
        end = 0
        while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
            end += 1
        return _joined(before[start : len(before) - end]), _joined(after[start : len(after) - end])


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())


def mutants(file: str) -> list[Mutant]:
    """Every mutant of a file: all operators at all places that count."""
    source = (REPOSITORY / file).read_text()
    lines = source.splitlines()
    tree = cosmic_ray.ast.get_ast(source)
    nodes = list(cosmic_ray.ast.ast_nodes(tree))
    left_out = list(_left_out(ast.parse(source)))
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for name in operators.OPERATORS:
        operator = cosmic_ray.plugins.get_operator(name)()
        positions = [(node, *ends) for node in nodes for ends in operator.mutation_positions(node)]
        for occurrence, (node, start, end) in enumerate(positions):
            inside = ASTQuery(node).get_definition_name() or "module"
            text = lines[start[0] - 1].strip()
            seen[name, inside, text] += 1
            if name != "core/RemoveDecorator" and any(first <= start < last for first, last in left_out):
                continue
            if node.type == "operator" and node.parent.type in ("parameters", "param", "lambdef"):
                continue  # the star of a signature, which is no product
            spec = MutationSpec(Path(file), name, occurrence, start, end, {}, inside)
            found.append(Mutant(file, name, inside, text, seen[name, inside, text], spec))
    return found


def sample(files: list[str], seed: int, count: int | None) -> list[Mutant]:
    """The first `count` places in the order of `seed`, and at each the mutant that the seed puts first; None is all."""
    every = sorted((mutant for file in files for mutant in mutants(file)), key=lambda m: m.order(seed))
    first: dict[tuple[str, int, int], Mutant] = {}
    for mutant in every:
        first.setdefault(mutant.place, mutant)
    return list(first.values())[:count]


def _left_out(tree: ast.Module) -> Iterator[Range]:
    """Where a change says nothing about behaviour.

    Annotations are never evaluated, and what stands under TYPE_CHECKING neither. Arguments of decorators are mostly
    `frozen=True` and `slots=True` of dataclasses, and `zip(strict=True)` is a check that no input of a user can reach.
    """
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
                yield _range(annotation)
            case ast.FunctionDef(returns=returns, decorator_list=decorators):
                yield from (_range(part) for part in [returns, *decorators] if part is not None)
            case ast.ClassDef(decorator_list=decorators):
                yield from map(_range, decorators)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield _range(node)
            case ast.Call(func=ast.Name(id="zip"), keywords=[ast.keyword(arg="strict") as strict]):
                yield _range(strict)
            case ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec" | "cast")):
                yield _range(node)


def _range(node: Any) -> Range:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
