"""A device that is not the CPU, for machines that have none: it refuses what a card refuses, and computes on the CPU.

Every tensor stays a CPU tensor; which of them "lie on the card" is a mark on their storage. ``.to(device)``, a ``device=`` argument and
results of marked tensors set the mark, ``.cpu()`` takes it away. Two modes watch over it: one sees each call of PyTorch's Python side
(what is asked for, and what ``tensor.device`` answers), the other each operator below it, those of the backward pass too. Refused, with a
card's words:

- an operator on tensors of both sides, but for what CUDA allows: copies, numbers without dimension, CPU indices into a card's tensor;
- ``numpy()`` of a tensor on the card.

The marked storages that are alive are the memory in use: :attr:`Card.bytes_now` and :attr:`Card.bytes_peak`. What this cannot show: kernels,
speed, a card's own rounding, and memory that kernels take for themselves.
"""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

NAME = "card"
aten = torch.ops.aten
BOTH_SIDES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Storage}  # an operator that may see both sides
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
WHERE, IS_CPU = torch.Tensor.device.__get__, torch.Tensor.is_cpu.__get__
MOVES = {torch.Tensor.to, torch.Tensor.cpu}
TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}


class Card:
    """The marks, and the bytes behind them."""

    def __init__(self) -> None:
        self.marks: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes_peak = 0
        self.working = 0  # how many calls on the card are under way: what they make out of nothing lies there too
        self.device = torch.device(NAME, 0)

    @property
    def bytes_now(self) -> int:
        """Bytes of all marked storages that are alive."""
        self.marks = {key: mark for key, mark in self.marks.items() if not mark[0].expired()}
        return sum(size for _, size in self.marks.values())

    def holds(self, tensor: torch.Tensor) -> bool:
        mark = self.marks.get(key_of(tensor))
        return mark is not None and not mark[0].expired()

    def mark(self, tensor: torch.Tensor) -> None:
        key = key_of(tensor)
        if key is not None and not self.holds(tensor):
            storage = tensor.untyped_storage()
            self.marks[key] = StorageWeakRef(storage), storage.nbytes()
            if len(self.marks) % 64 == 0 or storage.nbytes() > 1e5:
                self.bytes_peak = max(self.bytes_peak, self.bytes_now)

    def unmark(self, tensor: torch.Tensor) -> None:
        self.marks.pop(key_of(tensor), None)


def key_of(tensor: torch.Tensor) -> int | None:
    """What identifies a tensor's storage while it lives; ``None`` for a tensor without one."""
    if type(tensor).__name__ == "FakeTensor" or tensor.is_meta or tensor.layout is not torch.strided:
        return None
    return tensor.untyped_storage()._cdata


def tensors_in(values) -> list[torch.Tensor]:
    return [value for value in tree_iter(values) if isinstance(value, torch.Tensor)]


class Operators(TorchDispatchMode):
    """Below autograd: no operator mixes the two sides, and what it makes from the card's tensors lies on the card."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        there = [tensor for tensor in given if self.card.holds(tensor)]
        here = [tensor for tensor in given if tensor.dim() and not tensor.is_meta and not self.card.holds(tensor)]
        if there and here and function not in BOTH_SIDES and not (function in INDEXED and self.card.holds(args[0])):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({function})"
            )
        result = function(*args, **kwargs)
        if there or (not given and self.card.working):
            known = {key_of(tensor) for tensor in given}
            for tensor in tensors_in(result):
                if key_of(tensor) not in known:
                    self.card.mark(tensor)
        return result


class Calls(TorchFunctionMode):
    """PyTorch's Python side: what a caller asks for by ``device``, and what a tensor answers when it is asked where it lies."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function == WHERE:
            return self.card.device if self.card.holds(args[0]) else function(*args)
        if function == IS_CPU:
            return not self.card.holds(args[0]) and function(*args)
        if function in TO_NUMPY and self.card.holds(args[0]):
            raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
        if function in MOVES:
            return self.move(function, args, kwargs)
        asked = kwargs.get("device")
        asked = torch.device(asked) if isinstance(asked, str | torch.device | int) else None
        if asked is not None and asked.type == NAME:
            kwargs["device"] = "cpu"
        with self.at_work(any(self.card.holds(tensor) for tensor in tensors_in((args, kwargs)))):
            result = function(*args, **kwargs)
        if asked is not None and asked.type != "meta":
            for tensor in tensors_in(result):
                (self.card.mark if asked.type == NAME else self.card.unmark)(tensor)
        return result

    @contextlib.contextmanager
    def at_work(self, on_the_card: bool):
        self.card.working += on_the_card
        try:
            yield
        finally:
            self.card.working -= on_the_card

    def move(self, function, args, kwargs):
        """``to`` and ``cpu``: to the other side by a copy of its own, with the change of number format that goes along."""
        tensor = args[0]
        if tensor.is_meta or kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta":
            return function(*args, **kwargs)
        if function is torch.Tensor.cpu:
            device, dtype = torch.device("cpu"), None
        elif len(args) > 1 and isinstance(args[1], torch.Tensor):
            device, dtype = (self.card.device if self.card.holds(args[1]) else torch.device("cpu")), args[1].dtype
        else:
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **{name: kwargs[name] for name in kwargs if name != "copy"})
        on_card = self.card.holds(tensor)
        target = on_card if device is None else device.type == NAME
        moved = tensor.to(dtype) if dtype is not None else tensor
        if target != on_card or kwargs.get("copy"):
            moved = moved.clone() if moved.untyped_storage()._cdata == tensor.untyped_storage()._cdata else moved
            (self.card.mark if target else self.card.unmark)(moved)
        return moved


def pretend_amp() -> None:
    """Autocast and gradient scaling asked for on the card are the CPU's, which has both number formats."""
    plain = torch.autocast.__init__

    def on_cpu(self, device_type, *args, **kwargs):
        plain(self, "cpu" if device_type == NAME else device_type, *args, **kwargs)

    torch.autocast.__init__ = on_cpu


def insert_card() -> Card:
    """Put the card into this process: libraries find it and use it, as they would a GPU. Returns it, for its bytes."""
    from sentence_transformers.base import model

    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, SimpleNamespace(
        is_available=lambda: False, is_initialized=lambda: True, device_count=lambda: 1, current_device=lambda: 0,
        get_rng_state=lambda *at: torch.get_rng_state(), set_rng_state=lambda state, *at: torch.set_rng_state(state),
        manual_seed=lambda seed: None, manual_seed_all=lambda seed: None, _is_in_bad_fork=lambda: False,
        empty_cache=lambda: None, synchronize=lambda *at: None, set_device=lambda at: None,
        device=lambda at: contextlib.nullcontext(), get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
    ))  # fmt: skip
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{NAME}:0"  # accelerate's and the trainer's own way to name a device
    model.get_device_name = lambda: NAME
    pretend_amp()
    card = Card()
    Operators(card).__enter__()
    Calls(card).__enter__()
    return card
