"""The two operators that cosmic-ray lacks do what their examples say, and every operator of the list exists."""

from __future__ import annotations

import cosmic_ray.plugins
import pytest
from cosmic_ray.mutating import mutate_code

from tests.mutants.operators import OPERATORS, DeleteStatement, DropKeyword


@pytest.mark.parametrize("operator", [DeleteStatement, DropKeyword])
def test_examples(operator: type[DeleteStatement] | type[DropKeyword]) -> None:
    for example in operator.examples():
        changed = mutate_code(example.pre_mutation_code, operator(), example.occurrence)
        assert changed == example.post_mutation_code


@pytest.mark.parametrize(
    "code", ['"""Words."""\n', "rate = 1\n", "return f(x)\n", "raise ValueError(x)\n", "a.b\n"]
)
def test_statements_that_are_not_deleted(code: str) -> None:
    assert mutate_code(code, DeleteStatement(), 0) is None


@pytest.mark.parametrize("code", ["f(x, *rest)", "f(**rest)", "def f(x=1): pass", "f(i for i in x)", "x[1]"])
def test_calls_without_keywords(code: str) -> None:
    assert mutate_code(code, DropKeyword(), 0) is None


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_exists(name: str) -> None:
    assert cosmic_ray.plugins.get_operator(name)().examples()
