"""`fastdat plan`."""

from __future__ import annotations

from tests.commands.command_line import invoke

PRESET = ("--preset", "sngan-dat-lsun-bedroom")


def test_one_gpu() -> None:
    code, out, err = invoke("plan", *PRESET, "--batch-size", 2048, "--microbatch", 256, "--set", "steps=1000")
    assert (code, err) == (0, "")
    title, memory, images, iteration, reals, steps, basis, remark = out.splitlines()
    expected = (
        "sngan-dat-lsun-bedroom, batch 2,048 on NVIDIA H200: 2,048 reals and fakes a GPU, D in parts of 256"
    )
    assert title == expected
    assert memory.startswith("memory a GPU   ")
    assert memory.endswith(" GiB of 131 GiB: fits")
    assert images == "of these       34.6 GiB for the images of lsun-bedroom, which lie on the GPU"
    assert 34.6 + 15 < float(memory.split()[3]) < 34.6 + 27, "measured without them: 20.8"
    milliseconds = float(iteration.removeprefix("iteration      ").split()[0])
    assert abs(milliseconds / 544 - 1) < 0.2, "measured: 544 ms"
    assert abs(float(reals.split()[1].replace(",", "")) * milliseconds / 1e3 / (5 * 2048) - 1) < 1e-3
    assert steps.startswith(f"1,000 steps    {milliseconds / 60:.0f} minutes, ")
    assert basis.startswith(
        "from 8 measured trainings (sngan at 32, sngan at 64); when each is predicted from the others, time is wrong by"
    )
    assert remark.startswith("not measured: fakes_at_once=auto, but false")


def test_several_gpus() -> None:
    code, out, _ = invoke("plan", *PRESET, "--batch-size", 256, "--gpus", 8, "--gpu", "h200")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].endswith("batch 256 on 8 x NVIDIA H200: 32 reals and fakes a GPU")
    assert lines[2] == "images         34.6 GiB of lsun-bedroom stay in the host's memory"
    assert all(part in lines[3] for part in ("(computing ", "waiting for the host ", "averaging gradients "))
    assert sum(line.startswith("not measured: ") for line in lines) == 2


def test_too_large() -> None:
    code, out, _ = invoke("plan", *PRESET, "--batch-size", 65536)
    assert code == 0
    assert ": does not fit" in out
    assert "instead        --gpus 8 fits" in out


def test_images_of_your_own() -> None:
    _, out, _ = invoke("plan", "--preset", "sngan-dat-folder")
    assert out.splitlines()[2] == "images         not counted: how many there are is not known"


def test_mistakes() -> None:
    for arguments, expected in (
        (("--batch-size", 1000, "--gpus", 3), "the nearest that can: 999 and 1,002"),
        (("--gpu", "A100"), "there is no measurement for 'A100'"),
        (("--measured", "nothing.json"), "nothing.json does not exist: make gpu-check PART=sizes"),
        (("--set", "batch_sice=2"), "batch_sice"),
    ):
        code, out, err = invoke("plan", *PRESET, *arguments)
        assert (code, out) == (2, "")
        assert expected in err
