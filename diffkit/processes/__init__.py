"""Noise schedules and diffusion processes."""

from __future__ import annotations

from inspect import signature
from typing import Any

from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.base import Process
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM
from diffkit.processes.gaussian.diffusion_lm import DiffusionLM
from diffkit.processes.gaussian.plaid import Plaid, SoftTokenPlaid
from diffkit.processes.hybrid import HybridDiffusion
from diffkit.processes.insertion import EditFlow, FlexMDM
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.schedules import get_schedule
from diffkit.processes.sedd import SEDD, UDLM

PROCESSES: dict[str, type[Process]] = {
    process.name: process
    for process in (
        MaskedDiffusion,
        D3PM,
        SEDD,
        UDLM,
        HybridDiffusion,
        DiffusionLM,
        Plaid,
        SoftTokenPlaid,
        Autoregressive,
        BlockDiffusion,
        FlexMDM,
        EditFlow,
    )
}


def process_from(settings: dict[str, Any]) -> Process:
    """Build a process from what `Process.settings` returns; settings of other processes are passed over.

    Raises: ValueError for an unknown name, and as the constructor.
    """
    if settings.get("name") not in PROCESSES:
        raise ValueError(f"process_from: name must be one of {sorted(PROCESSES)}, got {settings.get('name')!r}.")
    kind = PROCESSES[settings["name"]]
    own = {name: settings[name] for name in signature(kind).parameters if name in settings}
    if "schedule" in own:
        own["schedule"] = get_schedule(own["schedule"], settings["T"], **settings.get("schedule_parameters", {}))
    return kind(**own.pop("noise_parameters", {}), **own)
