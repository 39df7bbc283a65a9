"""Which examples make a batch, and how they become tensors.

An effective batch is the examples of one optimizer step, over all processes and accumulation steps. It
depends on (seed, step) only, so that a resumed run needs no state. It is sorted by length and then cut into
micro-batches, which saves padding. The cut changes no gradient, because the loss is divided by the target
tokens of the whole effective batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DistributedSampler
from transformers import PreTrainedTokenizerBase

from flix_lightning.common.errors import UserError
from flix_lightning.models.loss import IGNORED


def mixing_rates(sizes: Sequence[int], temperature: float, cap: int | None) -> np.ndarray:
    """Return each dataset's share of the draws, as in seqio's mixtures: first the cap, then rate^(1/T).

    T is `temperature`: 1 is by size, inf is uniform. `cap` is the largest size that counts; None is no cap.
    """
    rates = np.minimum(np.asarray(sizes, dtype=np.float64), math.inf if cap is None else cap)
    rates = (rates / rates.max()) ** (1 / temperature)  # at most 1, so that no power overflows
    return rates / rates.sum()


def accumulation(batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """Return the number of micro-batches that each process takes in one optimizer step.

    Raises:
        UserError: It is not a whole number. Nothing is rounded, as another batch size gives another result.
    """
    together = micro_batch_size * world_size
    if batch_size % together:
        larger = -(-batch_size // together) * together
        share, left_over = divmod(batch_size, world_size)
        fitting = next((size for size in range(micro_batch_size, 0, -1) if share % size == 0), 1)
        smaller = "" if left_over else f"trainer.micro_batch_size={fitting} or "
        raise UserError(
            f"batch_size {batch_size} is not a multiple of micro_batch_size {micro_batch_size} x "
            f"{world_size} devices, so that no whole number of forward passes makes a step: {smaller}"
            f"trainer.batch_size={larger} would do"
        )
    return batch_size // together


@dataclass(frozen=True)
class MicroBatch:
    """The examples of one forward pass.

    Attributes:
        rows: Rows of the training table.
        step: The optimizer step, from 0.
        target_tokens: Total of the effective batch, over all processes.
    """

    rows: list[int]
    step: int
    target_tokens: int


class BatchPlan(DistributedSampler):
    """The micro-batches of one process, from step `start` to `max_steps`; raises UserError as `accumulation`.

    Datasets are drawn by rate. Within a dataset, all examples are used once before any is used again, each
    time in another order. All processes get the same number of micro-batches.

    `len` counts the micro-batches from step 0 on, as Lightning does for a resumed run. The type keeps
    Lightning from putting a sampler of its own in its place.

    Args:
        lengths: For each row of the training table, what it is sorted by. Rows of a dataset stand together.
        target_lengths: For each row, its tokens with a loss.
        sizes, rates: For each dataset, its examples and its share of the draws.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        target_lengths: np.ndarray,
        sizes: Sequence[int],
        rates: np.ndarray,
        *,
        batch_size: int,
        micro_batch_size: int,
        max_steps: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.accumulation = accumulation(batch_size, micro_batch_size, world_size)
        self.lengths, self.target_lengths = lengths, target_lengths
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        self.sizes, self.rates = sizes, rates
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.max_steps, self.start, self.seed = max_steps, start, seed
        self.rank, self.world_size = rank, world_size
        self._order = lru_cache(maxsize=2 * len(sizes))(self._shuffled)

    def __len__(self) -> int:
        return self.max_steps * self.accumulation

    def __iter__(self) -> Iterator[MicroBatch]:
        for step, rows in self.effective_batches():
            by_length = rows[np.lexsort((rows, self.target_lengths[rows], self.lengths[rows]))]
            target_tokens = int(self.target_lengths[rows].sum())
            micro_batches = by_length.reshape(-1, self.micro_batch_size)
            # Neighbours in length go to different processes, so that none waits for longer rows.
            for part in micro_batches[self.rank :: self.world_size]:
                yield MicroBatch(part.tolist(), step, target_tokens)

    def effective_batches(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (step, rows [batch_size]) from `start` on, the same on all processes."""
        used = np.zeros(len(self.sizes), dtype=np.int64)
        for step in range(self.max_steps):
            counts = self._generator(0, step).multinomial(self.batch_size, self.rates)
            if step >= self.start:
                parts = [self._take(d, int(used[d]), int(counts[d])) for d in np.flatnonzero(counts)]
                yield step, np.concatenate(parts)
            used += counts

    def _take(self, dataset: int, first: int, count: int) -> np.ndarray:
        """Return the rows of draws `first` to `first + count` of one dataset."""
        epochs, places = np.divmod(np.arange(first, first + count), self.sizes[dataset])
        rows = [self._order(dataset, int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return np.concatenate(rows) + self.offsets[dataset]

    def _shuffled(self, dataset: int, epoch: int) -> np.ndarray:
        return self._generator(1, dataset, epoch).permutation(self.sizes[dataset])

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


class EvaluationPlan(DistributedSampler):
    """The share of one process of `rows` of a table, in batches of similar length, longest first.

    All processes get the same number of batches, as each may hold a part of the model. For that, the shortest
    row may be repeated: count each row once. `lengths` are the tokens of all rows of the table. For the type,
    see `BatchPlan`.
    """

    def __init__(
        self, rows: np.ndarray, lengths: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1
    ):
        by_length = rows[np.lexsort((rows, -lengths[rows]))]
        own = np.pad(by_length, (0, -len(rows) % world_size), mode="edge")[rank::world_size]
        self.batches = [own[first : first + batch_size].tolist() for first in range(0, len(own), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


@dataclass(frozen=True)
class Collator:
    """Pads token ids to LongTensors [batch, length], on the left for generation by a decoder-only model."""

    pad_id: int
    is_encoder_decoder: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, is_encoder_decoder: bool) -> "Collator":
        """Return the collator of a model with this tokenizer."""
        # A model without a pad token (GPT-2) masks padding, so that any id is right.
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls(pad_id, is_encoder_decoder)

    def for_training(
        self, inputs: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and labels.

        A decoder-only model reads input and target as one text. Its labels leave out the input.
        """
        if not self.is_encoder_decoder:
            pairs = list(zip(inputs, targets, strict=True))
            inputs = [[*source, *target] for source, target in pairs]
            targets = [[IGNORED] * len(source) + list(target) for source, target in pairs]
        return {**self._padded(inputs, "right"), "labels": _pad(targets, IGNORED, "right")}

    def for_generation(self, inputs: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return input_ids and attention_mask."""
        return self._padded(inputs, "right" if self.is_encoder_decoder else "left")

    def _padded(self, inputs: Sequence[Sequence[int]], side: str) -> dict[str, Tensor]:
        return {
            "input_ids": _pad(inputs, self.pad_id, side),
            "attention_mask": _pad([[1] * len(one) for one in inputs], 0, side),
        }


def _pad(sequences: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    tensors = [torch.tensor(one, dtype=torch.long) for one in sequences]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)
