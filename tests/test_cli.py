"""The command line: fast to answer, clear about mistakes, and a run from its arguments to its folder."""

import json
import os
import platform
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

import fastdat
from fastdat import cli
from fastdat.data import Archive, DataError
from fastdat.data.cifar10 import FOLDER
from fastdat.training import PRESETS, NonFiniteError, TrainConfig, checkpoint, preset
from tests.training.runs import assert_same

TINY = ["--ngf", "4", "--ndf", "4", "--batch-size", "4", "--device", "cpu", "--no-compile"]
TINY += ["--set", "eval.every=null"]


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def fails(*arguments: object, code: int = 2) -> str:
    """Run, expect exit code ``code`` and nothing on standard output, return the message."""
    found, out, err = invoke(*arguments)
    assert (found, out) == (code, "")
    assert "Traceback" not in err
    return err


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# --- start-up ----------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "yaml", "matplotlib", "PIL", "fastdat.training", "fastdat.data")
    loaded = python(
        "import sys; from typer.testing import CliRunner; from fastdat.cli import app\n"
        "result = CliRunner().invoke(app, ['--help']); assert 'train' in result.output, result.output\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_help_is_fast() -> None:
    def seconds() -> float:
        start = time.monotonic()
        python("import sys; sys.argv = ['fastdat', '--help']; from fastdat.cli import main; main()")
        return time.monotonic() - start

    assert min(seconds() for _ in range(3)) < 1.5, (
        "0.3 s on an idle machine; torch alone would take longer than this"
    )


def test_the_version() -> None:
    code, out, _ = invoke("--version")
    assert code == 0
    versions = (
        f"fastdat {fastdat.__version__} (torch {torch.__version__}, Python {platform.python_version()})"
    )
    assert out == f"{versions}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["tr"], ["train"]),
        (["train", "--init"], ["--init-from"]),
    ],
)
def test_completion(typed: list[str], offered: list[str]) -> None:
    """What bash asks for at the end of a line, once ``fastdat --install-completion`` has told it to."""
    assert "--install-completion" in invoke("--help")[1]
    environment = {
        "_FASTDAT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["fastdat", *typed]),
        "COMP_CWORD": str(len(typed)),
    }
    result = CliRunner().invoke(cli.app, env=environment, prog_name="fastdat")
    assert result.stdout.split() == offered


def test_without_typer() -> None:
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "try:\n    import fastdat.cli\n"
        "except SystemExit as error:\n    print(error)"
    )
    assert python(code).strip() == 'the fastdat command needs typer: pip install "fastdat[train]"'


def test_without_a_dependency_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    message = fails("train", "--preset", "sngan-cifar10", "--dry-run")
    assert message == 'error: this command needs yaml: pip install "fastdat[train]"\n'


def test_a_missing_module_of_our_own_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastdat.training.presets", None)
    with pytest.raises(ModuleNotFoundError):
        invoke("presets")


# --- presets and configuration -----------------------------------------------------------------------------------


def test_presets_are_listed() -> None:
    code, out, _ = invoke("presets")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert names == list(PRESETS)
    lines = {line.split()[0]: line for line in out.splitlines()}
    for name, regularized in (
        ("sngan-cifar10", "no attack"),
        ("dcgan-dat-mnist", "DAT"),
        ("dcgan-rfm-cifar10", "no attack, rfm"),
        ("dcgan-robgan-cifar10", "robgan"),
        ("r3gan-dat-cifar10", "DAT, r1, r2"),
    ):
        assert f", {regularized}: " in lines[name]


def test_dry_run_prints_the_resolved_configuration() -> None:
    code, out, _ = invoke(
        "train", "--preset", "sngan-dat-cifar10", "--steps", 7, "--seed", 3, "--no-compile",
        "--set", "dat.eps=0.5", "--set", "betas=[0.5, 0.9]", "--set", "lr=1e-4", "--precision", "fp32",
        "--set", "channels_last=true", "--dry-run",
    )  # fmt: skip
    assert code == 0
    expected = preset("sngan-dat-cifar10").replace(
        {"steps": 7, "seed": 3, "compile": False, "dat.eps": 0.5, "betas": (0.5, 0.9), "lr": 1e-4}
        | {"precision": "fp32", "channels_last": True}
    )
    assert (expected.precision, expected.channels_last, expected.cudnn_benchmark) == ("fp32", True, "auto")
    assert TrainConfig.from_dict(yaml.safe_load(out)) == expected


def test_regularizers_and_attacks_are_set_as_json() -> None:
    code, out, _ = invoke(
        "train", "--preset", "dcgan-cifar10", "--set", 'regularizers=[{"name": "r1", "every": 16}]',
        "--set", "regularizers.r1.gamma=2", "--set", 'attack={"name": "robgan"}', "--set", "attack.steps=3",
        "--dry-run",
    )  # fmt: skip
    assert code == 0
    printed = yaml.safe_load(out)
    assert printed["regularizers"] == [{"name": "r1", "gamma": 2.0, "every": 16}]
    assert printed["attack"] == {
        "name": "robgan", "eps": 0.0625, "step": 1 / 128, "steps": 3, "clean_weight": 0.0
    }  # fmt: skip
    code, _, err = invoke("train", "--preset", "dcgan-cifar10", "--set", "regularizers=r1", "--dry-run")
    assert code == 2
    assert err.startswith("error: regularizers must be a list of mappings")


def test_dry_run_prints_paths_that_mean_the_same_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    code, out, _ = invoke(
        "train", "--preset", "sngan-cifar10", "--data", "a", "--set", "init_from=~/b", "--dry-run"
    )
    assert code == 0
    found = yaml.safe_load(out)
    assert (found["data"], found["init_from"]) == (f"{tmp_path}/a", "/home/me/b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "sngan"], "error: unknown preset 'sngan'. Did you mean sngan-"),
        (["--preset", "sngan-cifar10", "--set", "learning_rate=1"], "error: unknown setting learning_rate"),
        (["--preset", "sngan-cifar10", "--set", "lr"], "error: expected key=value"),
        (["--preset", "sngan-cifar10", "--steps", "0"], "error: steps must be an integer >= 1; got 0"),
        (["--preset", "sngan-cifar10", "--device", "tpu"], "error: device must be one of auto, cpu, cuda"),
        (
            ["--preset", "sngan-cifar10", "--precision", "fp16"],
            "error: precision must be one of auto, fp32, bf16; got 'fp16'",
        ),
        (
            ["--preset", "sngan-cifar10", "--set", "dat.eps=-1"],
            "error: dat.eps must be a finite number >= 0; got -1",
        ),
        (["--preset", "sngan-cifar10", "--outdir", "x"], "--data"),
        (["--preset", "sngan-cifar10", "--data", "x"], "--outdir"),
        (["--preset", "sngan-cifar10", "--steps", "many"], "valid integer"),
        (["--unknown"], "--unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments: list[str], message: str) -> None:
    assert message in fails("train", *arguments)


# --- train -------------------------------------------------------------------------------------------------------


def test_train(cifar10_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [
        "train",
        "--preset",
        "sngan-dat-cifar10",
        "--data",
        cifar10_root,
        "--steps",
        2,
        "--outdir",
        run,
        *TINY,
    ]
    code, out, _ = invoke(*arguments, "--set", "samples=4")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("fastdat ")
    assert lines[-2].startswith("step 2/2  loss D ")
    assert lines[-1].startswith("done: 2 steps in ")
    assert "\r" not in out
    assert "\x1b" not in out
    assert json.loads((run / "stats.jsonl").read_text())["step"] == 2
    assert (run / "samples" / "step-000002.png").is_file()
    again, out, _ = invoke(*arguments, "--set", "samples=4")
    assert again == 0
    assert "nothing to do: all 2 steps are done" in out
    assert "holds a run with other settings: seed 0 then, 1 now" in fails(*arguments, "--seed", 1)


def test_train_on_a_terminal_shows_a_bar(cifar10_root: Path, tmp_path: Path) -> None:
    arguments = ["train", "--preset", "sngan-cifar10", "--data", str(cifar10_root), "--steps", "2", *TINY]
    code = f"import sys; sys.argv = {['fastdat', *arguments, '--outdir', str(tmp_path / 'run')]!r}\n"
    code += "from fastdat.cli import main; main()"
    reader, writer = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "150"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=writer, env=environment) as process:
        os.close(writer)
        text = b""
        try:
            while part := os.read(reader, 65536):
                text += part
        except OSError:  # how Linux ends a terminal whose writer is gone
            pass
        finally:
            os.close(reader)
    assert process.returncode == 0
    assert "2/2" in text.decode()
    assert "it/s  ETA 0:00:00" in text.decode()


def test_the_config_of_a_run_starts_the_same_training(
    cifar10_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another folder, too: the paths in it are absolute."""
    monkeypatch.chdir(cifar10_root.parent)
    options = ["--data", cifar10_root.name, "--steps", 2, "--seed", 5, "--set", "dat.eps=0.5", *TINY]
    assert invoke("train", "--preset", "dcgan-dat-cifar10", "--outdir", tmp_path / "a", *options)[0] == 0
    monkeypatch.chdir(tmp_path)
    assert invoke("train", "--config", "a/config.yaml", "--outdir", "b")[0] == 0
    assert invoke("train", "--config", "a", "--outdir", "c", "--seed", 6)[0] == 0
    a, b, c = (checkpoint.load(tmp_path / run / "checkpoints" / "latest.pt") for run in "abc")
    assert a["config"] == b["config"]
    assert_same(a["netG"], b["netG"])
    assert a["config"] == c["config"] | {"seed": 5}
    assert any(not torch.equal(a["netG"][name], c["netG"][name]) for name in a["netG"])


def test_a_file_changes_a_preset_and_options_change_both(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 1e-4\nsteps: 9\ndat: {eps: 2}\ndata: images\n")
    code, out, _ = invoke(
        "train", "--preset", "sngan-dat-stl10", "--config", tmp_path / "mine.yaml", "--steps", 7,
        "--set", "dat.steps=3", "--dry-run",
    )  # fmt: skip
    assert code == 0
    changes = {"lr": 1e-4, "steps": 7, "dat.eps": 2.0, "dat.steps": 3, "data": f"{tmp_path}/images"}
    assert TrainConfig.from_dict(yaml.safe_load(out)) == preset("sngan-dat-stl10").replace(changes)


def test_missing_data_names_the_command(tmp_path: Path) -> None:
    message = fails(
        "train", "--preset", "sngan-cifar10", "--data", tmp_path / "no", "--outdir", tmp_path / "run"
    )
    assert f"    fastdat data download cifar10 {tmp_path / 'no'}\n" in message
    assert not (tmp_path / "run").exists()


def test_a_run_that_breaks_down_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise NonFiniteError("loss_d = nan")

    monkeypatch.setattr("fastdat.training.load_data", breaks)
    options = ["--preset", "sngan-cifar10", "--data", tmp_path, "--outdir", tmp_path / "run"]
    assert fails("train", *options, code=1) == "error: loss_d = nan\n"


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastdat.training.load_data", interrupt)
    options = ["--preset", "sngan-cifar10", "--data", tmp_path, "--outdir", tmp_path / "run"]
    assert fails("train", *options, code=130) == "interrupted\n"


def test_the_unexpected_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fastdat.training.load_data", fault)
    with pytest.raises(ZeroDivisionError):
        invoke("train", "--preset", "sngan-cifar10", "--data", tmp_path, "--outdir", tmp_path / "run")


# --- data --------------------------------------------------------------------------------------------------------


class Downloads:
    """Stands in for the downloader, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Archive, Path]] = []

    def __call__(self, archive: Archive, dest: Path, progress: Any = None) -> Path:
        self.asked.append((archive, dest))
        return dest / archive.folder


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Downloads:
    downloads = Downloads()
    monkeypatch.setattr("fastdat.data.download.fetch", downloads)
    return downloads


def test_data_download(downloads: Downloads, tmp_path: Path) -> None:
    code, out, _ = invoke("data", "download", "cifar10", tmp_path)
    assert code == 0
    ((archive, dest),) = downloads.asked
    assert dest == tmp_path
    assert archive.url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert archive.md5 == "c58f30108f718f92721af3b95e74349a"
    assert archive.sha256 == "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    assert out.splitlines() == [f"{archive.url} -> {tmp_path}", f"cifar10 is in {tmp_path / FOLDER}"]


def test_data_that_are_there_are_not_said_to_be_downloaded(
    downloads: Downloads, cifar10_root: Path, tmp_path: Path
) -> None:
    code, out, _ = invoke("data", "download", "cifar10", cifar10_root)
    assert (code, downloads.asked) == (0, [])
    assert out.startswith(f"cifar10 was in {cifar10_root / FOLDER} already; its files were not compared")
    (tmp_path / FOLDER).mkdir()
    assert f"{tmp_path / FOLDER} is incomplete. Remove it and run" in fails(
        "data", "download", "cifar10", tmp_path
    )


def test_unknown_data_set() -> None:
    assert "no download is known for 'imagenet'; there are: cifar10" in fails(
        "data", "download", "imagenet", "x"
    )


def test_a_failed_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise DataError("cannot download")

    monkeypatch.setattr("fastdat.data.download.fetch", fail)
    code, _, err = invoke("data", "download", "cifar10", tmp_path)
    assert (code, err) == (2, "error: cannot download\n")


def test_train_downloads_only_when_asked(downloads: Downloads, tmp_path: Path) -> None:
    options = ["--preset", "sngan-cifar10", "--data", tmp_path, "--outdir", tmp_path / "run"]
    fails("train", *options)
    assert downloads.asked == []
    code, out, err = invoke("train", *options, "--download")
    assert code == 2
    assert "cifar-10-python.tar.gz" in out
    assert f"holds no {FOLDER}" in err, "the stand-in brought nothing"
    assert len(downloads.asked) == 1
    invoke("train", *options[:2], "--set", f"data={tmp_path / 'b'}", *options[4:], "--download")
    assert [dest for _, dest in downloads.asked] == [tmp_path, tmp_path / "b"]
