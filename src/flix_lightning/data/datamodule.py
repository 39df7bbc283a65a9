"""The LightningDataModule: a mixture's splits as training and evaluation batches."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from flix_lightning.data.batches import (
    BatchPlan,
    Collator,
    EvaluationPlan,
    MicroBatch,
    accumulation,
    mixing_rates,
)
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Mixture
from flix_lightning.data.tokenization import Tokenization
from flix_lightning.data.tokenized import int_column, tokenized


class DataModule(LightningDataModule):
    """Batches of a mixture.

    A training batch (one micro-batch) is a dict:
        input_ids, attention_mask, labels: LongTensors [batch, length]. A label of -100 has no loss.
        features: For each example, a tuple of `kind:name`.
        ids: For each example, its id.
        step: The optimizer step, from 0.
        target_tokens: Target tokens of the whole effective batch, over all processes.
        own_target_tokens: Target tokens of this micro-batch.

    An evaluation batch is a dict:
        input_ids, attention_mask, features, ids: As above.
        dataset, position: LongTensors [batch]: index in `mixture.evaluate`, and row in that dataset, from 0.
        targets: For each example, its target text, not cut.

    Args:
        layout, mixture, tokenization, kinds, cache_dir: As for `tokenized`.
        batch_size: Examples of one optimizer step, over all processes.
        micro_batch_size, eval_batch_size: Examples of one forward pass, and of one generation.
        validation_cap, test_cap: Most examples of each evaluated dataset, chosen by a hash. None is all.
    """

    def __init__(
        self,
        layout: Layout,
        mixture: Mixture,
        tokenization: Tokenization,
        *,
        kinds: Collection[str],
        batch_size: int,
        micro_batch_size: int,
        eval_batch_size: int,
        validation_cap: int | None,
        test_cap: int | None,
        max_steps: int,
        seed: int,
        cache_dir: str | Path,
    ):
        super().__init__()
        self.layout, self.mixture, self.kinds = layout, mixture, tuple(kinds)
        self.tokenization = tokenization
        self.collator = Collator.of(tokenization.tokenizer, tokenization.is_encoder_decoder)
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.caps = {"train": None, "validation": validation_cap, "test": test_cap}
        self.max_steps, self.seed, self.cache_dir = max_steps, seed, cache_dir
        self._tables: dict[str, datasets.Dataset] = {}

    def table(self, split: str) -> datasets.Dataset:
        """Return the tokenized table of a split, which is made on first use (see `tokenized`)."""
        if split not in self._tables:
            cap = self.caps[split]
            self._tables[split] = tokenized(
                self.layout, self.mixture, split, self.tokenization, self.kinds, cap, self.cache_dir
            )
        return self._tables[split]

    def prepare_data(self) -> None:
        """Make all tables before the first step, so that a bad line of any file is found before training."""
        for split in self.caps:
            self.table(split)

    @property
    def accumulation(self) -> int:
        """The micro-batches of a step on each process; raises UserError as `batches.accumulation`."""
        return accumulation(self.batch_size, self.micro_batch_size, self._processes["world_size"])

    def train_dataloader(self) -> DataLoader:
        """Return the micro-batches from the trainer's optimizer step (0 without a trainer) to `max_steps`."""
        table = self.table("train")
        inputs, targets = int_column(table, "input_length"), int_column(table, "target_length")
        sizes = np.bincount(int_column(table, "dataset"), minlength=len(self.mixture.train))
        plan = BatchPlan(
            # A decoder-only model reads both as one text. Of an encoder-decoder's, the input is longer.
            inputs if self.tokenization.is_encoder_decoder else inputs + targets,
            targets,
            sizes,
            mixing_rates(sizes, self.mixture.temperature, self.mixture.cap),
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            max_steps=self.max_steps,
            seed=self.seed,
            start=self.trainer.global_step if self.trainer else 0,
            **self._processes,
        )

        def batch(micro: MicroBatch) -> dict[str, Any]:
            rows = table[micro.rows]
            return {
                **self.collator.for_training(rows["input_ids"], rows["target_ids"]),
                "features": [tuple(features) for features in rows["features"]],
                "ids": rows["id"],
                "step": micro.step,
                "target_tokens": micro.target_tokens,
                "own_target_tokens": sum(map(len, rows["target_ids"])),
            }

        return _TrainLoader(**_arguments(batch, plan))

    def eval_loader(self, split: str, indices: Collection[int] | None = None) -> DataLoader:
        """Return the batches of the split `validation` or `test`, as `EvaluationPlan` makes them.

        A batch may have examples of several datasets. `indices` chooses them by their index in
        `mixture.evaluate`; None is all that the split has.
        """
        table = self.table(split)
        members = int_column(table, "dataset")
        chosen = np.flatnonzero(np.isin(members, members if indices is None else list(indices)))
        lengths = int_column(table, "input_length")

        def batch(index: list[int]) -> dict[str, Any]:
            rows = table[index]
            return {
                **self.collator.for_generation(rows["input_ids"]),
                "features": [tuple(features) for features in rows["features"]],
                "ids": rows["id"],
                "dataset": torch.tensor(rows["dataset"]),
                "position": torch.tensor(rows["position"]),
                "targets": rows["target"],
            }

        plan = EvaluationPlan(chosen, lengths, self.eval_batch_size, **self._processes)
        return DataLoader(**_arguments(batch, plan))

    def val_dataloader(self) -> DataLoader:
        """Return the validation data of seen datasets of the reported tasks, all that selection may see."""
        return self.eval_loader("validation")

    @property
    def _processes(self) -> dict[str, int]:
        if not self.trainer:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


class _TrainLoader(DataLoader):
    """A loader that Lightning treats as resumable. It has no state, as it starts at the trainer's step."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class _Batches(TorchDataset):
    def __init__(self, batch: Callable[[Any], dict[str, Any]]):
        self.batch = batch

    def __getitem__(self, entry: Any) -> dict[str, Any]:
        return self.batch(entry)


def _arguments(batch: Callable[[Any], dict[str, Any]], plan: BatchPlan | EvaluationPlan) -> dict[str, Any]:
    # torch's own collate function would make lists of tuples.
    return {
        "dataset": _Batches(batch),
        "sampler": plan,
        "batch_size": None,
        "collate_fn": lambda batch: batch,
    }
