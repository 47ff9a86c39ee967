"""Checks that the device is there that training asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding
from kafal_pipeline.tracking.describe import hardware_tags

if TYPE_CHECKING:
    import torch

    from kafal_pipeline.config import Config

CHECK = "device"
SHORT_OF_MEMORY = 0.2  # share of a GPU's memory below which another program is worth a warning


def check(config: Config) -> Finding:
    """Look for the device of ``training.device``."""
    from kafal_pipeline.training.devices import choose_device

    try:
        device = choose_device(config.training.device)
    except UserError as error:
        return Finding(CHECK, FAILURE, str(error))
    return _cpu(config) if device.type == "cpu" else _gpu(device)


def _gpu(device: torch.device) -> Finding:
    import torch

    name = torch.cuda.get_device_name(device)
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        message = next(iter(str(error).splitlines()), "")
        advice = (
            "Look with nvidia-smi whether another program holds it, or whether the driver is older than PyTorch's "
            "CUDA; or set training.device=cpu."
        )
        return Finding(CHECK, FAILURE, f"{name} cannot be used ({message})", advice)
    found = f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if free < SHORT_OF_MEMORY * total:
        return Finding(CHECK, WARNING, found, "Another program holds the rest: nvidia-smi names it.")
    return Finding(CHECK, OK, found)


def _cpu(config: Config) -> Finding:
    import torch

    from kafal_pipeline.common.machine import cores
    from kafal_pipeline.training.precision import fast_bf16

    hardware, training = hardware_tags(), config.training
    found = f"{hardware['hardware.cpu']}, {cores()} cores, {hardware['hardware.memory_gb']} GB of memory"
    if training.device == "auto" and (gpus := hardware["hardware.gpus"]) != "none":
        remark = f"there is a GPU ({gpus}), but this PyTorch cannot use it"
        advice = (
            "Install a PyTorch with CUDA (https://pytorch.org/get-started) and a driver for it; or set "
            "training.device=cpu if the CPU is meant."
        )
    elif training.processes != "auto" and training.processes > cores():
        remark = f"training.processes is {training.processes}"
        advice = f"More processes than cores make training slower: training.processes=auto, or at most {cores()}."
    elif training.precision == "bf16" and not fast_bf16(torch.device("cpu")):
        remark, advice = "training.precision is bf16", "It is slower than fp32 on this processor: use fp32."
    elif training.precision == "tf32":
        remark, advice = "training.precision is tf32", "It changes nothing without a GPU."
    else:
        return Finding(CHECK, OK, found)
    return Finding(CHECK, WARNING, f"{found}; {remark}", advice)
