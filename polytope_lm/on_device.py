"""Computing where a model lives: devices that are here, and kernels of Triton where they do what plain torch does."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
_log = logging.getLogger(__name__)


def checked_device(device: Any) -> torch.device:
    """Return a device, if this machine can compute on it."""
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise PolytopeError(f"device {device!r} can't be used here ({reason}): give 'cpu'") from error
    return place


def sent(value: Tensor, device: torch.device) -> Tensor:
    """Send numbers to a device; a GPU is not waited for, so that it has its next work before it is done."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)


class Arriving:
    """Numbers on their way from a device to the host, while the device goes on computing.

    A GPU copies on a stream of its own into page-locked memory; other devices are waited for at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _side_stream(device) if device.type == "cuda" else None
        self._held: list[Tensor] = []  # what is still read

    def take(self, value: Tensor) -> Tensor:
        """Return a tensor of the host that holds the value once `wait` has returned."""
        if self._stream is None:
            return value.cpu()
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host.copy_(value, non_blocking=True)
        self._held.append(value)
        return host

    def sent(self) -> None:
        """Note that nothing more is taken."""
        self._last = self._stream.record_event() if self._stream is not None else None

    def wait(self) -> None:
        """Wait until all that was taken is there."""
        if self._last is not None:
            self._last.synchronize()
        self._held.clear()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def verified(name: str, plain: F, trial: Callable[[F], Tensor]) -> F:
    """Return the kernel `name` of `triton_kernels` if it gives on a trial what the plain function gives, else that.

    Triton compiles on the user's machine, with what is installed there: where that fails, results stay and are slower,
    which is said.
    """
    try:
        from polytope_lm import triton_kernels  # noqa: PLC0415 - it is not installed everywhere

        kernel: F = getattr(triton_kernels, name)
        if torch.equal(trial(kernel), trial(plain)):
            return kernel
        reason = "its result differs"
    except ImportError as error:
        reason = f"{error}"
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and there is a plain way
        reason = f"{type(error).__name__}: {error}"
    _log.warning("%s: Triton's kernel can't be used (%s); plain torch takes longer", name, reason.splitlines()[0][:200])
    return plain
