"""A device that is not the CPU, for machines that have none: it refuses what a GPU refuses, and
computes on the CPU.

Every tensor stays a CPU tensor; which of them "lie on the device" is a mark on their storage.
``.to(device)``, a ``device=`` argument and what is computed from marked tensors set the mark,
``.cpu()`` takes it away. Two modes watch over it: one sees each call of PyTorch's Python side (what
is asked for, and what ``tensor.device`` answers), the other each operator below it, the backward
pass included. Refused:

- an operator on tensors of both sides, but for what CUDA allows: copies, CPU indices into a GPU's
  tensor, and in element-wise operators a CPU number without dimension;
- ``numpy()`` of a tensor on the device, and a gradient that lies on the other side than its weight.

The marked storages that are alive are the memory in use: ``Device.bytes_now`` and
``Device.bytes_peak``, exact at every allocation. What this cannot show: kernels, speed, a GPU's own
rounding, and the memory that kernels and the allocator take for themselves.
"""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import DefaultDeviceType

NAME = "npu"  # a name that accelerate knows, and lets train in float16
aten = torch.ops.aten
BOTH_SIDES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Storage}
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# beside all element-wise operators
TAKES_NUMBERS = {aten.masked_fill.Tensor, aten.masked_fill_.Tensor}
WHERE, IS_CPU = torch.Tensor.device.__get__, torch.Tensor.is_cpu.__get__
SET_GRADIENT = torch.Tensor.grad.__set__
TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}


class Device:
    """The marks, and the bytes behind them."""

    torch_device = None  # set by insert_device, once PyTorch knows the name

    def __init__(self) -> None:
        self.marks: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes_at_most = 0  # as if nothing had been let go since bytes_now was last asked for
        self.bytes_peak = 0
        self.working = 0  # calls under way on the device: what they make lies there too

    @property
    def bytes_now(self) -> int:
        """Bytes of all marked storages that are alive."""
        self.marks = {key: mark for key, mark in self.marks.items() if not mark[0].expired()}
        self.bytes_at_most = sum(size for _, size in self.marks.values())
        return self.bytes_at_most

    def holds(self, tensor: torch.Tensor) -> bool:
        mark = self.marks.get(key_of(tensor))
        return mark is not None and not mark[0].expired()

    def place(self, tensor: torch.Tensor, on_device: bool) -> None:
        """Set a tensor's mark, or take it away."""
        key = key_of(tensor)
        if not on_device:
            self.marks.pop(key, None)
        elif key is not None and not self.holds(tensor):
            storage = tensor.untyped_storage()
            self.marks[key] = StorageWeakRef(storage), storage.nbytes()
            self.bytes_at_most += storage.nbytes()
            if self.bytes_at_most > self.bytes_peak:
                self.bytes_peak = max(self.bytes_peak, self.bytes_now)


def key_of(tensor: torch.Tensor) -> int | None:
    """What identifies a tensor's storage while it lives; ``None`` for a tensor without one."""
    if (
        type(tensor).__name__ == "FakeTensor"
        or tensor.is_meta
        or tensor.layout is not torch.strided
    ):
        return None
    return tensor.untyped_storage()._cdata


def tensors_in(values) -> list[torch.Tensor]:
    """The tensors in nested tuples, lists and dictionaries; asked for at every operator, so
    PyTorch's own ``tree_iter`` takes too long.
    """
    found, left = [], [values]
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value.values())
    return found


def refuse(what) -> None:
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({what})"
    )


class Operators(TorchDispatchMode):
    """Below autograd: no operator mixes the two sides, and what it makes from the device's tensors
    lies on the device.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        there = [tensor for tensor in given if self.device.holds(tensor)]
        if there and len(there) < len(given) and function not in BOTH_SIDES:
            self.check(
                function,
                args,
                [
                    tensor
                    for tensor in given
                    if not tensor.is_meta and not self.device.holds(tensor)
                ],
            )
        result = function(*args, **kwargs)
        if there or (not given and self.device.working):
            known = {key_of(tensor) for tensor in given}
            for tensor in tensors_in(result):
                if key_of(tensor) not in known:
                    self.device.place(tensor, True)
        return result

    def check(self, function, args, here: list[torch.Tensor]) -> None:
        """Raise as CUDA does for an operator on tensors of both sides; ``here``: those on the
        CPU.
        """
        if function in INDEXED and self.device.holds(args[0]):
            indices = tensors_in(args[1])
            here = [
                tensor
                for tensor in here
                if not any(tensor is index for index in indices) and tensor.dim()
            ]
        elif (
            function in TAKES_NUMBERS
            or torch.Tag.pointwise in function.tags
            or "_foreach_" in function.name()
        ):
            here = [tensor for tensor in here if tensor.dim()]
        if here:
            refuse(function)


class Calls(TorchFunctionMode):
    """PyTorch's Python side: what a caller asks for by ``device``, and what a tensor answers when
    it is asked where it lies.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        holds = self.device.holds
        if function == WHERE:
            return self.device.torch_device if holds(args[0]) else function(*args)
        if function == IS_CPU:
            return function(*args) and not holds(args[0])
        if function is torch.Tensor.get_device:
            return 0 if holds(args[0]) else -1
        if function in TO_NUMPY and holds(args[0]):
            raise TypeError(
                f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
            )
        if function == SET_GRADIENT and args[1] is not None and holds(args[0]) != holds(args[1]):
            refuse("the gradient of a weight")
        if function is torch.Tensor.backward:
            with self:  # hooks of the backward pass call PyTorch too
                return torch.autograd.backward(args[0], kwargs.pop("gradient", None), **kwargs)
        if function in (torch.Tensor.to, torch.Tensor.cpu):
            return self.move(function, args, kwargs)
        asked = kwargs.get("device")
        asked = torch.device(asked) if isinstance(asked, str | torch.device | int) else None
        if asked is not None and asked.type == NAME:
            kwargs["device"] = "cpu"
        on_device = any(holds(tensor) for tensor in tensors_in((args, kwargs)))
        self.device.working += on_device
        try:
            result = function(*args, **kwargs)
        finally:
            self.device.working -= on_device
        if asked is not None and asked.type != "meta" or function is torch.Tensor.__deepcopy__:
            for tensor in tensors_in(result):
                self.device.place(tensor, on_device if asked is None else asked.type == NAME)
        return result

    def move(self, function, args, kwargs):
        """``to`` and ``cpu``: to the other side by a copy of its own, with the change of number
        format that goes along.
        """
        tensor = args[0]
        if (
            tensor.is_meta
            or kwargs.get("device") is not None
            and torch.device(kwargs["device"]).type == "meta"
        ):
            return function(*args, **kwargs)
        on_device, copy = self.device.holds(tensor), kwargs.pop("copy", False)
        if function is torch.Tensor.cpu:
            device, dtype = torch.device("cpu"), None
        elif len(args) > 1 and isinstance(args[1], torch.Tensor):
            device, dtype = (
                (self.device.torch_device if self.device.holds(args[1]) else torch.device("cpu")),
                args[1].dtype,
            )
        else:
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **kwargs)
        to_device = on_device if device is None else device.type == NAME
        moved = tensor if dtype is None else tensor.to(dtype)
        if moved is tensor and (copy or to_device != on_device):
            moved = tensor.clone()
        if to_device != on_device:
            self.device.place(moved, to_device)
        return moved


def half_precision_on_cpu() -> None:
    """Autocast and gradient scaling that are asked for on the device are the CPU's, which has both
    number formats.
    """
    from accelerate import accelerator
    from transformers import training_args

    plain = torch.autocast.__init__

    def autocast(self, device_type, *args, **kwargs):
        plain(self, "cpu" if device_type == NAME else device_type, *args, **kwargs)

    torch.autocast.__init__ = autocast
    training_args.is_torch_bf16_gpu_available = lambda: True
    accelerator.get_grad_scaler = lambda distributed_type=None, **settings: torch.amp.GradScaler(
        NAME, **settings
    )


def optimizers_find_it() -> None:
    """Optimizers sort their tensors by device in C++, past both modes: correct the device that it
    names.
    """
    plain = torch._C._group_tensors_by_device_and_dtype

    def sort(*args):
        groups = plain(*args)
        return {
            (lists[0][0].device, dtype): (lists, indices)
            for (_, dtype), (lists, indices) in groups.items()
        }

    torch._C._group_tensors_by_device_and_dtype = sort


def insert_device() -> Device:
    """Put the device into this process: libraries find it and use it, as they would a GPU. Returns
    it, for its bytes.
    """
    from sentence_transformers.base import model

    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, SimpleNamespace(
        is_available=lambda: False, is_initialized=lambda: True, device_count=lambda: 1, current_device=lambda: 0,
        get_rng_state=lambda *at: torch.get_rng_state(), set_rng_state=lambda state, *at: torch.set_rng_state(state),
        manual_seed=lambda seed: None, manual_seed_all=lambda seed: None, _is_in_bad_fork=lambda: False,
        empty_cache=lambda: None, synchronize=lambda *at: None, set_device=lambda at: None,
        device=lambda at: contextlib.nullcontext(), get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
    ))  # fmt: skip
    # whose random state is kept between the two passes of the cached loss
    DefaultDeviceType.set_device_type(NAME)
    os.environ["ACCELERATE_TORCH_DEVICE"] = (
        f"{NAME}:0"  # accelerate's and the trainer's own way to name a device
    )
    model.get_device_name = lambda: NAME
    half_precision_on_cpu()
    optimizers_find_it()
    device = Device()
    device.torch_device = torch.device(NAME, 0)
    Operators(device).__enter__()
    Calls(device).__enter__()
    return device
