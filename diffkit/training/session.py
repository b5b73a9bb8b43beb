"""Around a run: requests to stop, flushed denormals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treat denormal numbers as zero while training, and only then: CPUs multiply such gradients many times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C, a request to terminate or a closed terminal sets, instead of breaking off within a step.

    The second request breaks off at once, but for a terminal, which may tell of its end twice.
    """
    stop, hangup = threading.Event(), getattr(signal, "SIGHUP", None)  # Windows has none

    def ask(number: int, _: Any) -> None:
        if stop.is_set() and number != hangup:
            raise KeyboardInterrupt
        stop.set()

    signals = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:  # nohup has it ignored
        signals.append(hangup)
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, ask) for number in signals if here}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
