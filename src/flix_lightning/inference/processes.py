"""The processes of a command on several devices: the first does the command, the others help it to answer."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric

from flix_lightning.common.errors import UserError
from flix_lightning.training.processes import RunEnvironment

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Processes:
    """The processes that answer together, of which this is one; by default the only one.

    Messages between them go over gloo, whatever the devices are. The others are started, or joined, with the
    first message: a command that is refused, or has nothing left to do, starts none.
    """

    def __init__(self, environment: RunEnvironment | None = None):
        self.environment = environment or RunEnvironment()
        self._joined = False

    @property
    def leads(self) -> bool:
        """Whether this process does the command."""
        return self.environment.leads

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.environment.world_size()

    def send(self, message: Any) -> None:
        """Send a message from the leading process to all others. In these it does nothing."""
        if self.leads and self.count > 1:
            self._exchange(torch.distributed.broadcast_object_list, [message])

    def receive(self) -> Any:
        """Wait for the next message of the leading process; None is the last one."""
        received = [None]
        self._exchange(torch.distributed.broadcast_object_list, received)
        return received[0]

    def map(self, function: Callable[[Batch], Result], batches: Sequence[Batch]) -> list[Result]:
        """Apply a function to each batch, in one of the processes; return all results in each process.

        Raises:
            UserError: the function raised one in any process.
        """
        try:
            own: Any = [function(batch) for batch in batches[self.environment.global_rank() :: self.count]]
        except UserError as error:
            own = error
        parts = [own] * self.count
        if self.count > 1:
            self._exchange(torch.distributed.all_gather_object, parts, own)
        for part in parts:
            if isinstance(part, UserError):
                raise part
        return [parts[i % self.count][i // self.count] for i in range(len(batches))]

    def release(self) -> None:
        """Send the last message to the processes that wait for one."""
        if self.count > 1 and (self._joined or self.environment.creates_processes_externally):
            self.send(None)
            torch.distributed.destroy_process_group()

    def _exchange(self, collective: Callable[..., None], *arguments: Any) -> None:
        try:
            if not self._joined:
                Fabric(accelerator="cpu", devices=self.count, plugins=[self.environment]).launch()
                self._joined = True
            collective(*arguments)
        except RuntimeError as error:
            if not self.leads:
                sys.exit(1)
            raise UserError("another process of this command ended early; call again to go on") from error
