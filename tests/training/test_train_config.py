"""Configuration: checked when made, unknown keys refused, the same after a trip through YAML."""

import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdat import DATConfig
from fastdat.losses import LOSSES
from fastdat.metrics import EvalConfig
from fastdat.robustness import MonitorConfig
from fastdat.training import ConfigError, TrainConfig
from fastdat.training.train_config import parse_assignment

# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1; got 0"),
        ({"steps": 1.5}, "steps must be an integer >= 1; got 1.5"),
        ({"steps": True}, "steps must be an integer >= 1; got True"),
        ({"batch_size": 1}, "batch_size must be an integer >= 2; got 1"),
        ({"ndf": 0}, r"ndf must be an integer >= 1 or None \(null in YAML and --set\); got 0"),
        ({"ngf": "wide"}, r"ngf must be an integer >= 1 or None \(null in YAML and --set\); got 'wide'"),
        ({"lr": 0}, "lr must be a finite number > 0; got 0"),
        ({"lr": float("nan")}, "lr must be a finite number > 0; got nan"),
        ({"lr": "1e-3x"}, "lr must be a finite number > 0; got '1e-3x'"),
        (
            {"betas": [0.0, 1.0]},
            r"betas must be \[a, b\], each a finite number >= 0 and < 1; got \[0.0, 1.0\]",
        ),
        ({"betas": 0.5}, r"betas must be \[a, b\], each a finite number .*; got 0.5"),
        ({"betas": [0.0]}, r"betas must be \[a, b\], each a finite number .*; got \[0.0\]"),
        ({"lr_decay": "cosine"}, "lr_decay must be one of linear, none; got 'cosine'"),
        (
            {"loss": "hing"},
            "loss must be one of hinge, gan, lsgan, wgan, lsgan-sigmoid, .*, rpgan; got 'hing'",
        ),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda"),
        ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16; got 'fp16'"),
        ({"channels_last": 1}, "channels_last must be auto or true or false; got 1"),
        ({"cudnn_benchmark": "yes"}, "cudnn_benchmark must be auto or true or false; got 'yes'"),
        ({"compile": 1}, "compile must be true or false; got 1"),
        ({"seed": -1}, "seed must be an integer >= 0 and < 9223372036854775808; got -1"),
        ({"dat": 3}, "dat must be an instance of DATConfig; got 3"),
        ({"dat.eps": -1}, r"dat\.eps must be a finite number >= 0; got -1"),
        ({"dat.eps": "big"}, "dat.eps must be a finite number >= 0; got 'big'"),
        ({"eval.seed": 2**32}, "eval.seed must be an integer >= 0 and < 4294967296; got 4294967296"),
        ({"dat.seed": "logit"}, "dat.seed must be one of logits, eq10, alg1; got 'logit'"),
        ({"dat.bounds": [1, -1]}, "dat.bounds must be .* with a < b, or None .*; got"),
        (
            {"dat.real": False, "dat.fake": False, "dat.eps": 0.5, "dat.second_order": True},
            r"^dat\.eps, dat\.second_order would have no effect: dat\.real and dat\.fake are false.* with -dat in its",
        ),
        (
            {"dat": {"epsilon": 1}},
            r"unknown setting dat\.epsilon. Did you mean dat\.eps\? There are: dat\.seed, .*dat\.eps,",
        ),
        ({"ndff": 3}, r"unknown setting ndff. Did you mean ndf\? There are: model, dataset"),
        ({"data.eps": 3}, r"unknown setting data\.eps"),
        ({"ema": 1.0}, "ema must be a finite number >= 0 and < 1; got 1.0"),
        ({"on_nan": "ignore"}, "on_nan must be one of stop, rollback"),
        (
            {"eval.every": 0},
            r"eval.every must be an integer >= 1 or None \(null in YAML and --set\), where .*; got 0",
        ),
        (
            {"eval.metrics": ["sfid"]},
            r"eval.metrics must be a list .*, each one of fid, kid, is, precision-recall, modes, .*; got",
        ),
        ({"eval.metrics": []}, r"eval.metrics must be a list \[a, b, ...\].*; got \[\]"),
        ({"eval.splits": ["train", "train"]}, "eval.splits must be a list .*, none of them twice; got"),
        ({"eval.metrics": ["modes", "fid"]}, "modes is for the 2-D mixtures and cannot be combined"),
        (
            {"eval": {"fake": 3}},
            r"unknown setting eval\.fake. Did you mean eval\.fakes\? There are: eval\.every",
        ),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict(values)


def test_values_at_their_limits() -> None:
    least = {
        "batch_size": 2,
        "ema": 0.0,
        "betas": [0.0, 0.0],
        "seed": 0,
        "nan_retries": 0,
        "checkpoints.keep": 0,
        "checkpoints.every": 1,
        "cosine.beta2": 0.0,
        "cosine.regularizers": 0.0,
        "regularizers": [{"name": "r1"}],
        "eval.fakes": 4,
        "eval.reals": 4,
        "eval.kid_subset_size": 2,
        "eval.seed": 2**32 - 1,
        "dat.eps": 0.0,
    }
    config = TrainConfig.from_dict(least).replace({"seed": 2**63 - 1})
    assert (config.batch_size, config.ema, config.seed, config.nan_retries) == (2, 0.0, 2**63 - 1, 0)
    for name in ("nan_retries", "checkpoints.keep", "cosine.beta2", "cosine.regularizers", "ema"):
        with pytest.raises(ConfigError, match=f"^{name} must be .* >= 0.*; got -1$"):
            TrainConfig.from_dict({name: -1})
    for name, below, limit in (("eval.fakes", 3, 4), ("eval.reals", 3, 4), ("eval.kid_subset_size", 1, 2)):
        with pytest.raises(ConfigError, match=f"^{name} must be an integer >= {limit}.*; got {below}$"):
            TrainConfig.from_dict({name: below})


def test_defaults() -> None:
    """Table I's, for your own nets too. What is added to a step, or changes its results, is off."""
    nothing = dict.fromkeys(("model", "dataset", "data", "classes", "ngf", "ndf"))
    found = TrainConfig().to_dict()
    assert (found.pop("dat"), found.pop("monitor"), found.pop("eval")) == (
        dataclasses.asdict(DATConfig()) | {"bounds": [-1.0, 1.0]},
        dataclasses.asdict(MonitorConfig()),
        dataclasses.asdict(EvalConfig())
        | {
            "metrics": ["fid", "kid", "is"],
            "splits": ["train", "test"],
        },  # the rest: metrics/test_eval_config.py
    )
    assert found.pop("cosine") == {
        "steps": None,
        "lr": None,
        "beta2": None,
        "regularizers": None,
        "ema_halflife": False,
    }
    assert found.pop("checkpoints") == {"every": 1000, "keep": 2, "keep_every": None}
    assert found == nothing | {
        "resolution": 32,
        "nz": 128,
        "loss": "hinge",
        "attack": None,
        "dat_generator": "none",
        "regularizers": [],
        "steps": 100_000,
        "batch_size": 64,
        "n_dis": 5,
        "lr": 2e-4,
        "betas": [0.0, 0.9],
        "lr_decay": "linear",
        "ema": 0.0,
        "init_from": None,
        "flip": False,
        "augment": "none",
        "seed": 0,
        "device": "auto",
        "compile": True,
        "fakes_at_once": "auto",
        "cuda_graph": True,
        "fold": True,
        "precision": "fp32",
        "channels_last": False,
        "cudnn_benchmark": False,
        "microbatch": None,
        "log_every": 50,
        "sample_every": 500,
        "samples": 64,
        "on_nan": "stop",
        "nan_retries": 3,
        "hang_timeout": 600.0,
        "logger": "tensorboard",
    }


def test_what_is_recorded_of_a_run_with_nets_of_ones_own() -> None:
    """Not the settings from which nets, optimizers and data are made; and none of them may be set."""
    making = {"model", "dataset", "data", "resolution", "classes", "ngf", "ndf", "lr", "betas"}
    own, named = TrainConfig(), TrainConfig(model="sngan", dataset="cifar10", ndf=8)
    assert set(own.to_dict()) - set(own.recorded()) == making
    assert named.recorded() == named.to_dict()
    own.refuse_unused()
    with pytest.raises(
        ConfigError, match=r"^ndf, betas would have no effect: nets, optimizers and reals are given"
    ):
        TrainConfig(ndf=8, betas=(0.5, 0.9)).refuse_unused()
    with pytest.raises(ConfigError, match=r"^model, dataset, ndf would have no effect"):
        named.refuse_unused()


def test_construction_checks_too() -> None:
    with pytest.raises(ConfigError, match="n_dis must be an integer >= 1; got 0"):
        TrainConfig(n_dis=0)


def test_losses_are_those_of_the_library() -> None:
    for loss in LOSSES:
        assert TrainConfig.from_dict({"loss": loss}).loss == loss


def test_replace() -> None:
    config = TrainConfig(lr=1)  # type: ignore[arg-type]
    assert config.lr == 1.0
    assert isinstance(config.lr, float)
    changed = config.replace({"dat.eps": 2, "dat.eps_batch": None, "betas": [0.5, 0.9], "ndf": None})
    assert changed.dat == DATConfig(eps=2.0, eps_batch=None)
    assert changed.betas == (0.5, 0.9)
    assert config.dat == DATConfig(), "the original stays"
    assert config.replace({"dat": DATConfig.paper(), "dat.eps": 0.5}).dat == dataclasses.replace(
        DATConfig.paper(), eps=0.5
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 2.0  # type: ignore[misc]


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(1e-8, 1),
            "ndf": st.none() | st.integers(1, 512),
            "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
            "compile": st.booleans(),
            "dat.eps": st.floats(0, 10),
            "dat.bounds": st.none() | st.just((0.0, 1.0)),
            "dat.second_order": st.booleans(),
        },
    )
)
def test_yaml_round_trip(values: dict[str, Any]) -> None:
    config = TrainConfig.from_dict(values)
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


# --- key=value ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=1e-4", ("lr", 1e-4)),
        ("steps = 10", ("steps", 10)),
        ("lr_decay=none", ("lr_decay", "none")),
        ("ndf=None", ("ndf", None)),
        ("ndf=null", ("ndf", None)),
        ("flip=True", ("flip", True)),
        ("flip=false", ("flip", False)),
        ("betas=[0.5, 0.9]", ("betas", [0.5, 0.9])),
        ("device=cuda", ("device", "cuda")),
        ("eval.metrics=[fid, precision-recall]", ("eval.metrics", ["fid", "precision-recall"])),
        ("regularizers=[{name: r1, gamma: 1e-2}]", ("regularizers", [{"name": "r1", "gamma": 0.01}])),
        ("data=[not a list", ("data", "[not a list")),
        ("device=", ("device", "")),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_parse_assignment(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["lr", "=3", ""])
def test_parse_assignment_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_assignment(text)
