"""The processes that train together: each computes a part of every batch, and all make the same update.

A batch has the same rows, times and noise whatever the number of processes, since they are functions of (seed, step,
slot). What differs is the order in which a gradient is added up, about 10⁻⁷ of it. `exact` removes that as well: the
batch is cut into 8 pieces however many processes there are, and the sum is one binary tree, of which a process has a
branch. It then has the same bits on 1, 2, 4 and 8 processes.

Processes find each other as `torchrun` says in the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), or by a
process group that exists already, as under Ray Train. No pickle goes from one to another: only numbers and JSON.
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

PIECES = 8
PEER_TIMEOUT = 30.0  # seconds
_MEETING = 600.0  # until the last one has started
_RARE = 7200.0  # for what one process does alone: checkpoints, measuring, pictures
Part = Callable[[int, int], Tensor]


@dataclass
class ProcessGroup:
    """`size` processes of which this is number `rank`; the first one, number 0, is the only one that writes."""

    rank: int = 0
    size: int = 1
    exact: bool = False
    peer_timeout: float = PEER_TIMEOUT
    quick: Any = None  # the group that gives up after `peer_timeout`
    slow: Any = None  # the group for what takes long

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def check(self, batch: int) -> None:
        """InputError where a batch cannot be divided among the processes."""
        if self.exact and (self.size > PIECES or PIECES % self.size):
            raise InputError(f"got {self.size} processes with deterministic_reduction; expected 1, 2, 4 or "
                             "8; change their number or leave --deterministic-reduction out")
        if batch < self._pieces():
            raise InputError(f"got batch_size={batch} for {self._pieces()} pieces; expected a row or more for each")

    def total(self, part: Part, batch: int) -> Tensor:
        """The sum of part(first slot, end slot) over the whole batch, on every process the same bits."""
        pieces = self._pieces()
        first, end = self.rank * pieces // self.size, (self.rank + 1) * pieces // self.size
        mine = _tree(lambda k: part(k * batch // pieces, (k + 1) * batch // pieces), first, end)
        if self.size == 1:
            return mine
        with self._touch():
            if not self.exact:
                dist.all_reduce(mine, group=self.quick)
                return mine
        return _added(self._each(mine))

    def _each(self, mine: Tensor) -> list[Tensor]:
        """What every process has."""
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        with self._touch():
            dist.all_gather(everyone, mine, group=self.quick)
        return everyone

    def agree(self, wanted: int, device: torch.device) -> int:
        """The largest number that a process wants."""
        if self.size == 1:
            return wanted
        voices = torch.tensor(wanted, device=device)
        with self._touch():
            dist.all_reduce(voices, dist.ReduceOp.MAX, group=self.quick)
        return int(voices)

    def share(self, make: Callable[[], Any]) -> Any:
        """The JSON value that the first process makes; if it cannot, all stop, and the first one says why."""
        if self.size == 1:
            return make()
        try:
            text = json.dumps({"value": make()}) if self.leads else ""
        except UndiffuseError as error:
            self._tell(json.dumps({"code": exit_code(error)}))
            raise
        told = json.loads(self._tell(text))
        if "value" not in told:
            raise SystemExit(told["code"])
        return told["value"]

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes the first one's values, in place."""
        with self._touch():
            for t in tensors if self.size > 1 else ():
                far = t.device.type == "cpu" and dist.get_backend(self.quick) != "gloo"  # NCCL sends from GPUs only
                dist.broadcast(t, 0, group=self.slow if far else self.quick)

    def wait(self) -> None:
        """Returns when all processes have come here, however long the first one takes."""
        if self.size > 1:
            with self._touch():
                dist.all_reduce(torch.zeros(1), group=self.slow)

    def voice(self, error: UndiffuseError) -> BaseException:
        """The error on the first process, a silent end on the others: for what all notice at once."""
        return error if self.leads else SystemExit(exit_code(error))

    def _pieces(self) -> int:
        return PIECES if self.exact else self.size

    def _tell(self, text: str) -> str:
        """What the first process says, to all."""
        with self._touch():
            length = torch.tensor(len(text.encode()))
            dist.broadcast(length, 0, group=self.slow)
            raw = torch.zeros(int(length), dtype=torch.uint8)
            if self.leads:
                raw = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
            dist.broadcast(raw, 0, group=self.slow)
        return bytes(raw.tolist()).decode()

    @contextmanager
    def _touch(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise MachineError(f"process {self.rank} of {self.size} lost touch with another one, which died or was "
                               f"stuck for {self.peer_timeout:g} s; start the same command again, and the run goes on "
                               "from its last checkpoint") from error


SINGLE_PROCESS = ProcessGroup()
"""One process."""


@contextmanager
def process_group(
    device: torch.device, exact: bool = False, peer_timeout: float = PEER_TIMEOUT
) -> Iterator[ProcessGroup]:
    """The team of this process: as the environment says, or itself alone.

    peer_timeout: seconds after which a peer that does not answer is given up. Raises MachineError if they do not meet.
    """
    there = dist.is_available() and dist.is_initialized()
    if not there and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup(exact=exact, peer_timeout=peer_timeout)
        return
    if not there:
        _rendezvous()
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        quick, slow = (dist.new_group(backend=kind, timeout=timedelta(seconds=seconds))
                       for kind, seconds in ((backend, peer_timeout), ("gloo", _RARE)))
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), exact, peer_timeout, quick, slow)
    finally:
        if not there:
            dist.destroy_process_group()


def local_rank() -> int:
    """The number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def exit_code(error: UndiffuseError) -> int:
    """2 for what the user can mend, 1 for the machine."""
    return 2 if isinstance(error, InputError) else 1


def _rendezvous() -> None:
    """Under `torchrun` each attempt meets under a name of its own, lest it finds the addresses of the one before."""
    limit, attempt = timedelta(seconds=_MEETING), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store, rank, size = next(rendezvous("env://", timeout=limit))
        mine = PrefixStore(f"attempt {attempt}", store)
        dist.init_process_group("gloo", store=mine, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        raise MachineError(f"the processes do not find each other: {str(error).splitlines()[0]}; start them by torchrun"
                           ) from error


def _added(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in the order of `_tree`, in the memory of the first."""
    middle = len(parts) // 2
    return parts[0] if len(parts) == 1 else _added(parts[:middle]).add_(_added(parts[middle:]))


def _tree(part: Callable[[int], Tensor], first: int, end: int) -> Tensor:
    """part(first) + ... + part(end − 1), added in pairs, pairs of pairs, and so on."""
    if end - first == 1:
        return part(first)
    middle = (first + end) // 2
    return _tree(part, first, middle).clone().add_(_tree(part, middle, end))
