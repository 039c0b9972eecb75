"""Every file of the core has tests that should notice its change, and they exist."""

from __future__ import annotations

import pytest

from tests.environment import REPOSITORY
from tests.mutants.noticing import by_interpreter, noticing_tests

CORE = ["engine", "regularizers", "training", "data", "nets", "metrics"]
PASSES = "tests/engine/passes"
OF_TERMS = "tests/regularizers"


def has_code(source: str) -> bool:
    return len(source.splitlines()) > 1


def test_every_file_of_the_core_is_listed() -> None:
    paths = [path for folder in CORE for path in (REPOSITORY / "fastdat" / folder).rglob("*.py")]
    paths += (REPOSITORY / "kernels").glob("*.py")
    paths += [REPOSITORY / "fastdat" / name for name in ("losses.py", "config.py", "info.py")]
    core = {str(path.relative_to(REPOSITORY)) for path in paths if has_code(path.read_text())}
    assert core == set(noticing_tests())


def test_every_test_exists_once() -> None:
    for file, tests in noticing_tests().items():
        assert tests, file
        assert len(set(tests)) == len(tests), file
        assert [test for test in tests if not (REPOSITORY / test).is_file()] == [], file


@pytest.mark.parametrize(
    ("file", "first", "last"),
    [
        ("fastdat/regularizers/lecam.py", f"{OF_TERMS}/test_lecam.py", f"{OF_TERMS}/test_terms_in_a_step.py"),
        ("fastdat/engine/passes/zero_flow.py", f"{PASSES}/test_zero_flow.py", f"{PASSES}/test_order.py"),
        ("fastdat/losses.py", "tests/test_losses.py", None),
    ],
)  # fmt: skip
def test_own_tests_come_first_and_those_of_the_nearest_folder_last(
    file: str, first: str, last: str | None
) -> None:
    tests = noticing_tests()[file]
    assert tests[0] == first
    assert last is None or tests[-1] == last


def test_tests_of_kernels_are_apart() -> None:
    compiled, losses = "tests/kernels/test_offline_table.py::test_it", "tests/test_losses.py"
    interpreted = ["tests/kernels/test_ops.py", "tests/kernels/test_operator.py"]
    found = by_interpreter([interpreted[0], losses, compiled, interpreted[1]])
    assert found == {False: [losses, compiled], True: interpreted}
    assert by_interpreter(interpreted) == {True: interpreted}
