"""Reading run folders: complete, new, interrupted in the middle of a line, damaged, or not a run at all."""

from pathlib import Path

import pytest

from fastdat.report import ReportError
from fastdat.report.runs import read_runs
from tests.report.runs import make_run, scored, stats, write_lines


def test_complete_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", metrics=(scored(20, {"fid": 30.0}),))
    (run,) = read_runs([path])
    assert (run.label, run.done, run.total, run.attacks) == ("run", 40, 100, True)
    assert run.config["dat.eps"] == 1.0
    assert [line["step"] for line in run.stats] == list(range(1, 41))
    assert run.values("delta_rms_fake") == (list(range(1, 41)), [2e-3] * 40)
    assert [line["scores"] for line in run.metrics] == [{"fid": 30.0}]
    assert [(step, file.name) for step, file in run.samples] == [
        (0, "step-000000.png"),
        (5, "step-000005.png"),
    ]
    assert run.reals is not None


def test_run_that_has_just_begun(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text("steps: 100\n")
    (run,) = read_runs([path])
    assert (run.stats, run.metrics, run.samples, run.reals, run.done) == ([], [], [], None, 0)


def test_grids_beyond_a_million_steps_are_sorted_by_step(tmp_path: Path) -> None:
    """Sorted by file name, step 1,000,000 would come before step 999,999."""
    path = make_run(tmp_path / "run", grids=0)
    for name in ("step-1000000.png", "step-999999.png", "step-x.png", ".step-000001.png.tmp"):
        (path / "samples" / name).write_bytes(b"")
    (run,) = read_runs([path])
    assert [step for step, _ in run.samples] == [999_999, 1_000_000]


def test_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=3)
    with (path / "stats.jsonl").open("a") as file:
        file.write('{"step": 4, "loss_')
    (run,) = read_runs([path])
    assert [line["step"] for line in run.stats] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"step": 2, "lo', "Unterminated string"),
        ("[2]", "a list, no object"),
        ('{"loss_d": 1}', "step is None"),
        ('{"step": true}', "step is True"),
        ('{"step": -1}', "step is -1"),
        ("[" * 100_000, "recursion"),
        ("\x00\x00", "Expecting value"),
    ],
)
def test_damaged_line_elsewhere_is_an_error(tmp_path: Path, line: str, problem: str) -> None:
    path = make_run(tmp_path / "run", steps=0)
    (path / "stats.jsonl").write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
    with pytest.raises(ReportError, match=rf"stats\.jsonl, line 2, is damaged: .*{problem}"):
        read_runs([path])


def test_values_that_are_not_finite_numbers_are_ignored(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=0)
    (path / "stats.jsonl").write_text(
        '{"step": 1, "loss_d": NaN}\n{"step": 2, "loss_d": 2}\n{"step": 3, "loss_d": "high"}\n'
        '{"step": 4, "loss_d": null}\n{"step": 5, "loss_d": true}\n{"step": 6}\n{"step": 7, "loss_d": Infinity}\n'
    )
    (run,) = read_runs([path])
    assert run.values("loss_d") == ([2], [2.0])


def test_lines_are_sorted_by_step(tmp_path: Path) -> None:
    """`fastdat eval` of an earlier checkpoint appends its scores after those of later steps."""
    path = make_run(tmp_path / "run", steps=0)
    write_lines(path / "metrics.jsonl", [scored(100, {"fid": 20.0}), scored(50, {"fid": 30.0})])
    write_lines(path / "stats.jsonl", [stats(2), stats(1)])
    (run,) = read_runs([path])
    assert [line["step"] for line in run.metrics] == [50, 100]
    assert [line["step"] for line in run.stats] == [1, 2]


def test_labels_distinguish_runs_of_the_same_name(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name / "run", grids=0) for name in ("a", "b")]
    paths.append(make_run(tmp_path / "c", grids=0))
    assert [run.label for run in read_runs(paths)] == ["a/run", "b/run", "c"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: [", "cannot be read: while parsing"),
        ("- a\n- b\n", "must hold settings as key: value, but holds a list"),
        ("", "must hold settings as key: value, but holds a NoneType"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    ],
)
def test_damaged_config(tmp_path: Path, content: str, problem: str) -> None:
    path = make_run(tmp_path / "run", grids=0)
    (path / "config.yaml").write_text(content)
    with pytest.raises(ReportError, match=problem):
        read_runs([path])


def test_path_that_is_not_a_run_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "mine", grids=0)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for path, problem in [
        (tmp_path / "none", "it does not exist"),
        (tmp_path / "file", "it is a file; give the folder that holds config.yaml"),
        (
            tmp_path / "empty",
            r"looked for config\.yaml in it, which `fastdat train` writes when a run begins$",
        ),
        (tmp_path / "runs", "there are runs inside it: mine"),
    ]:
        with pytest.raises(ReportError, match=rf"{path.name} is no run folder: .*{problem}"):
            read_runs([path])


def test_same_run_twice_and_no_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", grids=0)
    with pytest.raises(ReportError, match="is given twice"):
        read_runs([path, path.parent / "." / "run"])
    with pytest.raises(ReportError, match="one run folder at least"):
        read_runs([])
