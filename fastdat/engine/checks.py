"""Checks of D and of the options of a step. Each message says what was given, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fastdat.config import AttackConfig, DATConfig
from fastdat.engine.types import Batch
from fastdat.losses import AnyLoss, is_pair
from fastdat.regularizers.sign_attacks import SignAttack
from fastdat.regularizers.term import Term

_WRAPPERS = {
    "DataParallel": "use torch.nn.parallel.DistributedDataParallel, one process a GPU",
    "FullyShardedDataParallel": "use torch.nn.parallel.DistributedDataParallel; D fits on one device",
    "FSDPModule": "use torch.nn.parallel.DistributedDataParallel; D fits on one device",
}


def check_module(D: object, xr: object) -> None:
    """Raises TypeError if D is not a module.

    Args:
        D: what the user has given.
        xr: what was given in its place, to tell a wrong order of arguments.
    """
    if not isinstance(D, nn.Module):
        if isinstance(D, type) and issubclass(D, nn.Module):
            raise TypeError(
                f"D must be a torch.nn.Module, got the class {D.__name__} itself: make one, {D.__name__}(...)"
            )
        swapped = isinstance(D, Tensor) or isinstance(xr, nn.Module)
        raise TypeError(
            f"D must be a torch.nn.Module, got {type(D).__name__}: "
            + (
                "the arguments are in another order, call dat_step(D, xr, xf)"
                if swapped
                else "wrap a function in a Module whose forward calls it"
            )
        )


def check_discriminator(D: nn.Module) -> None:
    """Raises NotImplementedError for a module that a step cannot run."""
    for kind in type(D).__mro__:
        if kind.__name__ in _WRAPPERS:
            raise NotImplementedError(
                f"D wrapped in {kind.__name__} cannot be stepped: {_WRAPPERS[kind.__name__]}"
            )
    if isinstance(D, torch.jit.ScriptModule):
        raise NotImplementedError(
            "D is a torch.jit.ScriptModule (scripted or traced), whose tensors a step cannot replace: give the module "
            "that it was made from. A part of D may be one, with dat_step(..., compile=False)"
        )


def check_options(config: object, compile: object, fold: object, with_info: object, aux_loss: object) -> None:
    """Raises TypeError for an option of another type."""
    if not isinstance(config, (DATConfig, SignAttack)):
        cure = ""
        if isinstance(config, dict):
            cure = ": write DATConfig(**config)"
        elif isinstance(config, type) and issubclass(config, (DATConfig, SignAttack)):
            cure = f" class itself: write {config.__name__}()"
        elif isinstance(config, str):
            cure = f": the loss is the argument after config, loss={config!r}"
        elif isinstance(config, Term):
            cure = f": a regularizer is given as regularizers=({type(config).__name__}(...),)"
        raise TypeError(
            f"config must be a fastdat.DATConfig, or fastdat.regularizers.ASGAN or RobGAN, got {named(config)}{cure}"
        )
    for name, value in (("fold", fold), ("with_info", with_info)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    if not isinstance(compile, (bool, str)):
        raise TypeError(
            f"compile must be True, False or the name of a mode of torch.compile, got {compile!r}: compile=False is "
            "the eager step"
        )
    if aux_loss is not None and not callable(aux_loss):
        raise TypeError(
            f"aux_loss must be a function (D, xr, xf) -> scalar, got {named(aux_loss)}: a value that is computed "
            "already is added to the result of dat_step"
        )


def check_seed(config: AttackConfig, loss: AnyLoss, attacks: bool) -> None:
    """Raises ValueError where the attack, if there is one, differentiates g1 and g2 of a loss that has none."""
    if isinstance(config, DATConfig) and attacks and config.seed != "logits" and is_pair(loss):
        raise ValueError(
            f"the loss {getattr(loss, 'name', type(loss).__name__)} compares pairs and has no g1 and g2, which "
            f'seed="{config.seed}" attacks: use DATConfig(seed="logits")'
        )


def check_features(found: Mapping[str, object], batch: int) -> None:
    """Raises ValueError where a submodule whose output a regularizer sees gives no tensor with one row a sample."""
    for path, output in found.items():
        if output is None:
            raise ValueError(
                f"D's submodule {path!r}, whose output a regularizer is to see, does not run when D is called: name "
                "one that does"
            )
        if not isinstance(output, Tensor) or output.shape[:1] != (batch,) or not output.is_floating_point():
            given = (
                f"{output.dtype} of shape {tuple(output.shape)}"
                if isinstance(output, Tensor)
                else named(output)
            )
            raise ValueError(
                f"D's submodule {path!r}, whose output a regularizer is to see, must give a floating-point tensor with "
                f"one row a sample, ({batch}, ...), got {given}: name another submodule"
            )


def check_extras(count: int, terms: Collection[Term]) -> None:
    """Raises ValueError where a regularizer needs further outputs of D, and there are none."""
    for term in terms:
        if term.needs.extras and not count:
            raise ValueError(
                f"the regularizer {term.name} needs a further output of D, (logits, output), but D returns logits "
                f"only: leave {term.name} out, or give a D that returns it"
            )


def check_parameters(params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """Raises ValueError for tensors of D that hold nothing yet, or that autograd cannot use."""
    for name, tensor in (*params.items(), *buffers.items()):
        if is_lazy(tensor):
            raise ValueError(
                f"D's '{name}' has no shape yet, since its layer is lazy: call D once on a batch before the first step"
                ", D(xr, ...)"
            )
        if tensor.is_inference():
            raise ValueError(
                f"D's '{name}' was made under torch.inference_mode(), so it can neither be trained nor change: make D "
                "outside of it, or give the parameter a copy made outside, p.data = p.clone()"
            )


def check_layers(modules: Mapping[str, nn.Module], world_size: int) -> None:
    """Raises NotImplementedError for layers that a step cannot run."""
    if world_size == 1:
        return
    for name, module in modules.items():
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            raise NotImplementedError(
                f"D's layer '{name}' is a SyncBatchNorm in training mode, whose communication cannot be "
                "differentiated inside the step: call fastdat.nets.share_batch(D), whose batch norms see all ranks and "
                "can be, or use another normalisation or D.eval()"
            )


def check_device(params: Mapping[str, Tensor], batch: Batch) -> None:
    """Raises ValueError where D and the samples are on different devices."""
    for name, p in params.items():
        if p.device != batch.xr.device:
            raise ValueError(
                f"D is on {p.device} ('{name}') and the samples on {batch.xr.device}: move one of them with .to(...)"
            )


def check_autocast(device: torch.device) -> None:
    """Raises TypeError under fp16 autocast, in which input gradients underflow without a loss scaler."""
    if torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16:
        raise TypeError(
            f"fp16 autocast: the attack's input gradients underflow. Use torch.autocast('{device.type}', "
            "dtype=torch.bfloat16)"
        )


def check_precision(terms: Collection[Term], x: Tensor) -> None:
    """Raises TypeError where a regularizer that compares D at close samples would compare roundings."""
    half = torch.is_autocast_enabled(x.device.type) or x.dtype in (torch.bfloat16, torch.float16)
    for term in terms:
        if half and term.in_full_precision:
            raise TypeError(
                f"the regularizer {term.name} compares D at samples that are closer than bf16 can tell apart: leave "
                "autocast, and give samples in fp32"
            )


def check_output(out: Any, batch: int) -> None:
    """Raises TypeError or ValueError where D's output has no logits of one value a sample."""
    logits = out[0] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(logits, Tensor):
        cure = ""
        if isinstance(out, Mapping):
            cure = ": wrap D in a Module whose forward returns the entry of the logits"
        elif out is None:
            cure = ": its forward lacks a return"
        raise TypeError(f"D must return logits, or a tuple with logits first, got {type(out).__name__}{cure}")
    if tuple(logits.shape) not in ((batch,), (batch, 1)) or not logits.is_floating_point():
        raise ValueError(
            f"D must return one raw logit a sample, shape ({batch},) or ({batch}, 1), got {logits.dtype} of shape "
            f"{tuple(logits.shape)}: take the mean over patches, or put the logits first in the output"
        )
    for i, extra in enumerate(out[1:] if isinstance(out, (tuple, list)) else (), start=1):
        if not isinstance(extra, Tensor):
            raise TypeError(
                f"D's further outputs must be tensors, but output {i} is {type(extra).__name__}: leave it out, or "
                "return its tensors one by one, (logits, a, b)"
            )


def check_microbatch(microbatch: int | None, has_aux: bool, terms: Collection[Term]) -> None:
    """Raises TypeError or ValueError for a micro-batch that cannot give the step of the whole batch."""
    if microbatch is None:
        return
    if isinstance(microbatch, bool) or not isinstance(microbatch, int):
        raise TypeError(f"microbatch must be an integer >= 1 (samples a side at a time), got {microbatch!r}")
    if microbatch < 1:
        raise ValueError(f"microbatch must be an integer >= 1 (samples a side at a time), got {microbatch!r}")
    if has_aux:
        raise ValueError(
            "microbatch with aux_loss: a loss of the whole batch cannot be split exactly. Call aux_loss(D, xr, xf) "
            "yourself and add it, or leave microbatch out"
        )
    for term in terms:
        if term.couples and term.needs.extras:
            raise ValueError(
                f"microbatch with the regularizer {term.name}, which joins the samples of the whole batch, cannot take "
                "D's further outputs: leave microbatch out"
            )


def check_one_sigma(config: AttackConfig, terms: Collection[Term]) -> None:
    """Raises ValueError where parts of a batch would see D with other sigmas than a term that joins them."""
    for term in terms:
        if term.couples and config.power_iterations == "per_forward":
            raise ValueError(
                f"microbatch with the regularizer {term.name}, which joins the samples of the whole batch, needs one "
                'sigma for all parts: use power_iterations="once"'
            )


def check_splittable(modules: Mapping[str, nn.Module], independent: bool, moving: tuple[str, ...]) -> None:
    """Raises ValueError where a D that couples samples was to be run on parts of a batch."""
    if independent and not moving:
        return
    norms = [n for n, m in modules.items() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    cause = (
        f"its layers {', '.join(map(repr, norms[:4]))} normalise over the batch"
        if norms
        else (
            f"its buffers {', '.join(moving[:4])} follow the batch"
            if moving
            else "one sample's logit depends on others"
        )
    )
    raise ValueError(
        f"microbatch needs a D that treats its samples independently, but {cause}: parts of the batch would give "
        "another gradient. Leave microbatch out, or use norms of single samples, or norms in evaluation mode"
    )


def check_reach(to_samples: bool, to_weights: bool, attacks: bool) -> None:
    """Raises ValueError where the gradient of D's logits reaches nothing, or not the samples that are attacked."""
    if not (to_samples or to_weights):
        raise ValueError(
            "D's logits depend on neither its parameters nor its input, as autograd sees them, so there is nothing to "
            "train or to attack: D detaches them, or runs under torch.no_grad() or torch.inference_mode(), or leaves "
            "PyTorch (.detach(), .data, .item(), .numpy()). Take that out of D's forward"
        )
    if attacks and not to_samples:
        raise ValueError(
            "D's logits do not depend on its input, as autograd sees it, so the attack has no direction and the step "
            "would be the plain GAN step: D detaches its input, or reads it under torch.no_grad(). Take that out of "
            "D's forward, or turn the attack off with DATConfig(real=False, fake=False)"
        )


def check_strangers(shapes: Collection[torch.Size]) -> None:
    """Raises ValueError where tensors of these shapes require a gradient and would get none."""
    if shapes:
        raise ValueError(
            f"D (or aux_loss) uses {len(shapes)} tensor(s) that require a gradient and are no parameters of D, of "
            f"shape {', '.join(str(tuple(shape)) for shape in list(shapes)[:4])}: a step gives gradients to D's "
            "parameters, xr and xf only. Register them in D (nn.ModuleList instead of a list, a submodule, an "
            "nn.Parameter), or take them out of the gradient with .requires_grad_(False) or .detach()"
        )


def check_functions(names: Collection[str], has_hooks: bool, traced_twice: bool) -> None:
    """Raises NotImplementedError where D cannot be differentiated exactly.

    Args:
        names: of the autograd.Functions that D and aux_loss call.
        has_hooks: D registers hooks on tensors.
        traced_twice: the step is compiled, and of second order. torch.compile differentiates the backward of an
            autograd.Function, and a hook, wrongly in silence (torch 2.11 to 2.13).
    """
    if "CheckpointFunction" in names:
        raise NotImplementedError(
            "D uses activation checkpointing with use_reentrant=True, which gives no gradient for D's input: call "
            "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
    if not traced_twice or not (names or has_hooks):
        return
    what = f"calls the autograd.Function {', '.join(names)}" if names else "registers a hook on a tensor"
    raise NotImplementedError(
        f"D (or aux_loss) {what}: torch.compile loses a part of its second derivative, so the gradient would be wrong "
        "with second_order=True, or with a penalty on D's input gradient. Call dat_step(..., compile=False), or write "
        "it with PyTorch's own operations"
    )


def named(value: object) -> str:
    """What a value is, in a word; a class is named itself."""
    return value.__name__ if isinstance(value, type) else type(value).__name__
