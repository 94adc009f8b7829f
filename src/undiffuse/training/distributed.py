"""Data-parallel training: every process computes a part of each batch, and all make the same update.

Rows, times and noise of a batch are functions of (seed, step, slot), whatever the number of processes; only the order
in which gradients are added differs, which changes about 10⁻⁷ of them. With deterministic reduction the batch is cut
into 8 pieces and the sum is one binary tree, of which each process has a branch: the same bits on 1, 2, 4 and 8
processes.

Processes meet by the environment of `torchrun` (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) or use a process group that
exists already, as under Ray Train. They exchange numbers and JSON, never pickles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from undiffuse.errors import InputError, MachineError, UndiffuseError
from undiffuse.launcher import launched

PIECES = 8
PEER_TIMEOUT = 30.0  # seconds
_START_TIMEOUT = 600.0  # seconds until the last process has started
_MAIN_TIMEOUT = 7200.0  # seconds for work of the main process alone: checkpoints, measurements, previews
SlotSum = Callable[[int, int], Tensor]


@dataclass
class ProcessGroup:
    """`size` processes of which this one is number `rank`; the main process, number 0, is the only one that writes.

    Args:
        rank: Number of this process.
        size: Number of processes.
        deterministic: Whether sums over a batch have the same bits on 1, 2, 4 and 8 processes.
        peer_timeout: Seconds after which a process that does not answer is given up.
        fast_group: torch's group with the timeout `peer_timeout`.
        slow_group: torch's group for work of the main process that the others wait for.
    """

    rank: int = 0
    size: int = 1
    deterministic: bool = False
    peer_timeout: float = PEER_TIMEOUT
    fast_group: Any = None
    slow_group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def check_batch_size(self, batch_size: int) -> None:
        """InputError if a batch cannot be divided among the processes."""
        if self.deterministic and (self.size > PIECES or PIECES % self.size):
            raise InputError(f"got {self.size} processes with deterministic_reduction; expected 1, 2, 4 or "
                             "8; change their number or leave --deterministic-reduction out")
        if batch_size < self._pieces():
            raise InputError(f"got batch_size={batch_size} for {self._pieces()} pieces; expected a row or more per "
                             "piece")

    def batch_sum(self, slot_sum: SlotSum, batch_size: int) -> Tensor:
        """The sum of slot_sum(first, end) over all slots of a batch, with the same bits on every process."""
        pieces = self._pieces()
        first, end = self.rank * pieces // self.size, (self.rank + 1) * pieces // self.size
        local = _tree_reduce(lambda k: slot_sum(k * batch_size // pieces, (k + 1) * batch_size // pieces), first, end)
        if self.size == 1:
            return local
        with self._peer_errors():
            if not self.deterministic:
                dist.all_reduce(local, group=self.fast_group)
                return local
        return _tree_sum(self.gather(local))

    def gather(self, local: Tensor) -> list[Tensor]:
        """The tensors of all processes, by rank."""
        tensors = [torch.empty_like(local) for _ in range(self.size)]
        with self._peer_errors():
            dist.all_gather(tensors, local, group=self.fast_group)
        return tensors

    def all_reduce_max(self, value: int, device: torch.device) -> int:
        """The largest of the values of all processes."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, device=device)
        with self._peer_errors():
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.fast_group)
        return int(largest)

    def broadcast_object(self, make: Callable[[], Any]) -> Any:
        """The JSON value that `make` returns on the main process; an error there ends all processes."""
        if self.size == 1:
            return make()
        try:
            text = json.dumps({"value": make()}) if self.is_main else ""
        except UndiffuseError as error:
            self._broadcast_text(json.dumps({"code": exit_code(error)}))
            raise
        message = json.loads(self._broadcast_text(text))
        if "value" not in message:
            raise SystemExit(message["code"])
        return message["value"]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors of all processes with those of the main process."""
        with self._peer_errors():
            for t in tensors if self.size > 1 else ():
                on_cpu = t.device.type == "cpu" and dist.get_backend(self.fast_group) != "gloo"  # NCCL needs GPUs
                dist.broadcast(t, 0, group=self.slow_group if on_cpu else self.fast_group)

    def barrier(self) -> None:
        """Returns when all processes have called it, however long the main process takes."""
        if self.size > 1:
            with self._peer_errors():
                dist.all_reduce(torch.zeros(1), group=self.slow_group)

    def error_on_main(self, error: UndiffuseError) -> BaseException:
        """The error on the main process, a silent exit elsewhere; for failures that every process detects."""
        return error if self.is_main else SystemExit(exit_code(error))

    def _pieces(self) -> int:
        return PIECES if self.deterministic else self.size

    def _broadcast_text(self, text: str) -> str:
        """The text of the main process."""
        with self._peer_errors():
            length = torch.tensor(len(text.encode()))
            dist.broadcast(length, 0, group=self.slow_group)
            raw = torch.zeros(int(length), dtype=torch.uint8)
            if self.is_main:
                raw = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
            dist.broadcast(raw, 0, group=self.slow_group)
        return bytes(raw.tolist()).decode()

    @contextmanager
    def _peer_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise MachineError(f"process {self.rank} of {self.size} lost the connection: another process died or did "
                               f"not answer for {self.peer_timeout:g} s; run the same command again to resume from "
                               "the last checkpoint") from error


SINGLE_PROCESS = ProcessGroup()
"""The group of a single process."""


@contextmanager
def process_group(
    device: torch.device, deterministic: bool = False, peer_timeout: float = PEER_TIMEOUT
) -> Iterator[ProcessGroup]:
    """The group of this process by the environment, or of this process alone; MachineError if they do not meet.

    Args:
        device: The device of the gradients.
        deterministic: See `ProcessGroup`.
        peer_timeout: Seconds after which a process that does not answer is given up.
    """
    initialized = dist.is_available() and dist.is_initialized()
    if not initialized and launched() == 1:
        yield ProcessGroup(deterministic=deterministic, peer_timeout=peer_timeout)
        return
    if not initialized:
        _rendezvous()
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        fast, slow = (dist.new_group(backend=kind, timeout=timedelta(seconds=seconds))
                       for kind, seconds in ((backend, peer_timeout), ("gloo", _MAIN_TIMEOUT)))
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), deterministic, peer_timeout, fast, slow)
    finally:
        if not initialized:
            dist.destroy_process_group()


def local_rank() -> int:
    """The number of this process on its machine, which is the number of its GPU."""
    rank = os.environ.get("LOCAL_RANK", "")
    return int(rank) if rank.isdecimal() and launched() > 1 else 0


def exit_code(error: UndiffuseError) -> int:
    """2 for wrong input, 1 for a failure of the machine."""
    return 2 if isinstance(error, InputError) else 1


def _rendezvous() -> None:
    """Joins the processes; each restart under `torchrun` uses a separate prefix, so that no old addresses are found."""
    limit, attempt = timedelta(seconds=_START_TIMEOUT), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store, rank, size = next(rendezvous("env://", timeout=limit))
        prefixed = PrefixStore(f"attempt {attempt}", store)
        dist.init_process_group("gloo", store=prefixed, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        raise MachineError(f"the processes did not connect: {str(error).splitlines()[0]}; start them by torchrun"
                           ) from error


def _tree_sum(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors in the order of `_tree_reduce`, in the memory of the first."""
    middle = len(parts) // 2
    return parts[0] if len(parts) == 1 else _tree_sum(parts[:middle]).add_(_tree_sum(parts[middle:]))


def _tree_reduce(term: Callable[[int], Tensor], first: int, end: int) -> Tensor:
    """term(first) + ... + term(end − 1), added in pairs, pairs of pairs, and so on."""
    if end - first == 1:
        return term(first)
    middle = (first + end) // 2
    return _tree_reduce(term, first, middle).clone().add_(_tree_reduce(term, middle, end))
