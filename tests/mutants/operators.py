"""How code is changed: the operators of cosmic-ray that are used, and two that it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cosmic_ray.plugins
import parso
from cosmic_ray.operators.operator import Example, Operator

Position = tuple[tuple[int, int], tuple[int, int]]

OPERATORS = (
    "core/ReplaceBinaryOperator_Add_Sub",
    "core/ReplaceBinaryOperator_Sub_Add",
    "core/ReplaceBinaryOperator_Mul_Div",
    "core/ReplaceBinaryOperator_Mul_Add",
    "core/ReplaceBinaryOperator_Div_Mul",
    "core/ReplaceBinaryOperator_FloorDiv_Mul",
    "core/ReplaceBinaryOperator_Mod_FloorDiv",
    "core/ReplaceBinaryOperator_Pow_Mul",
    "core/ReplaceBinaryOperator_BitOr_BitAnd",
    "core/ReplaceBinaryOperator_BitAnd_BitOr",
    "core/ReplaceBinaryOperator_BitXor_BitAnd",
    "core/ReplaceBinaryOperator_LShift_RShift",
    "core/ReplaceBinaryOperator_RShift_LShift",
    "core/ReplaceComparisonOperator_Eq_NotEq",
    "core/ReplaceComparisonOperator_NotEq_Eq",
    "core/ReplaceComparisonOperator_Lt_LtE",
    "core/ReplaceComparisonOperator_Lt_Gt",
    "core/ReplaceComparisonOperator_LtE_Lt",
    "core/ReplaceComparisonOperator_LtE_GtE",
    "core/ReplaceComparisonOperator_Gt_GtE",
    "core/ReplaceComparisonOperator_Gt_Lt",
    "core/ReplaceComparisonOperator_GtE_Gt",
    "core/ReplaceComparisonOperator_GtE_LtE",
    "core/ReplaceComparisonOperator_Is_IsNot",
    "core/ReplaceComparisonOperator_IsNot_Is",
    "core/ReplaceUnaryOperator_USub_UAdd",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/AddNot",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceBreakWithContinue",
    "core/ReplaceContinueWithBreak",
    "core/ExceptionReplacer",
    "core/NumberReplacer",
    "core/RemoveDecorator",
    "core/ZeroIterationForLoop",
    "fastdat/DeleteStatement",
    "fastdat/DropKeyword",
)


class DeleteStatement(Operator):  # type: ignore[misc]
    """Deletes a statement that acts on something: a call, an assignment to an attribute or an item, an update."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "simple_stmt" and _acts(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        statement = node.children[0]
        prefix = statement.get_first_leaf().prefix
        node.children[0] = parso.python.tree.Keyword("pass", statement.start_pos, prefix=prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (
            Example("ema.update()\n", "pass\n"),
            Example("self.rate = 1\n", "pass\n"),
            Example("rate[0] = 1\n", "pass\n"),
            Example("total += 1\n", "pass\n"),
            Example("rate = 1\nema.update()\n", "rate = 1\npass\n"),
        )


def _acts(statement: Any) -> bool:
    if statement.type == "atom_expr":
        last = statement.children[-1]
        return last.type == "trailer" and last.children[0].value == "("
    if statement.type != "expr_stmt":
        return False
    target, assignment = statement.children[:2]
    return target.type == "atom_expr" or (assignment.type == "operator" and assignment.value != "=")


class DropKeyword(Operator):  # type: ignore[misc]
    """Leaves out an argument that a call gives by its name, so that the default is taken."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        for argument in _keywords(node):
            yield argument.start_pos, argument.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        at = node.children.index(_keywords(node)[index])
        comma = at + 1 if at + 1 < len(node.children) and _is_comma(node.children[at + 1]) else at - 1
        dropped = {at, comma} if node.type == "arglist" else {at}
        node.children = [child for i, child in enumerate(node.children) if i not in dropped]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (
            Example("f(x, order=2)", "f(x)"),
            Example("f(order=2)", "f()"),
            Example("f(a=1, b=2)", "f( b=2)"),
            Example("f(a=1, b=2)", "f(a=1)", occurrence=1),
        )


def _keywords(node: Any) -> list[Any]:
    if node.type == "arglist" or (node.type == "trailer" and node.children[0].value == "("):
        return [
            c
            for c in node.children
            if c.type == "argument" and str(getattr(c.children[1], "value", "")) == "="
        ]
    return []


def _is_comma(node: Any) -> bool:
    return bool(node.type == "operator" and node.value == ",")


# cosmic-ray finds operators by entry points of installed packages; these belong to the tests alone.
cosmic_ray.plugins.OPERATOR_PROVIDERS["fastdat"] = {
    "DeleteStatement": DeleteStatement,
    "DropKeyword": DropKeyword,
}
