"""The LightningDataModule: a mixture's splits, tokenised once, as train and evaluation batches."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase

from flix_lightning.common.errors import UserError
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
from flix_lightning.data.tokenized import Tokenization, tokenized, values


class DataModule(LightningDataModule):
    """Batches of a mixture.

    A train batch (one micro-batch) is a dict: input_ids, attention_mask, labels (LongTensors
    [batch, length]; labels -100 where there is no loss), features (list of tuples of `kind:name`), ids
    (list of strings), step (optimiser step, from 0), target_tokens and examples (of the whole effective
    batch, over all processes), own_target_tokens (of this micro-batch).

    An evaluation batch is a dict: input_ids, attention_mask (LongTensors [batch, length]), features, ids,
    dataset (LongTensor [batch], index in `mixture.evaluate`), position (LongTensor [batch], row within
    that dataset, from 0), targets (list of strings, not cut).

    kinds: feature kinds that examples carry, in this order.
    max_input_length, max_target_length: tokens; what is longer is cut, counted and logged.
    batch_size: examples of one optimiser step, over all processes; micro_batch_size: of one forward pass.
    validation_cap, test_cap: most examples of each evaluated dataset (ids chosen by hash); None is all.
    cache_dir: where tokenised tables are kept. workers: processes that collate batches; 0 is none.
    Raises UserError for a number that is not a whole one above 0, and for a tokenizer without eos.
    """

    def __init__(
        self,
        layout: Layout,
        mixture: Mixture,
        tokenizer: PreTrainedTokenizerBase,
        *,
        is_encoder_decoder: bool,
        kinds: Collection[str],
        max_input_length: int,
        max_target_length: int,
        batch_size: int,
        micro_batch_size: int,
        eval_batch_size: int,
        validation_cap: int | None,
        test_cap: int | None,
        max_steps: int,
        seed: int,
        cache_dir: str | Path,
        workers: int = 0,
    ):
        super().__init__()
        for name, value in {
            "max_input_length": max_input_length,
            "max_target_length": max_target_length,
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "eval_batch_size": eval_batch_size,
            "validation_cap": validation_cap or 1,
            "test_cap": test_cap or 1,
            "max_steps": max_steps,
        }.items():
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}; a whole number above 0 is needed")
        self.layout, self.mixture = layout, mixture
        self.tokenization = Tokenization(
            tokenizer, is_encoder_decoder, tuple(kinds), max_input_length, max_target_length
        )
        self.collator = Collator.of(tokenizer, is_encoder_decoder)
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.caps = {"train": None, "validation": validation_cap, "test": test_cap}
        self.max_steps, self.seed = max_steps, seed
        self.cache_dir, self.workers = cache_dir, workers
        self._tables: dict[str, datasets.Dataset] = {}

    def table(self, split: str) -> datasets.Dataset:
        """Give the tokenised table of a split; made on first use (see `flix_lightning.data.tokenized`)."""
        if split not in self._tables:
            self._tables[split] = tokenized(
                self.layout, self.mixture, split, self.tokenization, self.caps[split], self.cache_dir
            )
        return self._tables[split]

    def prepare_data(self) -> None:
        """Make every table before the first step: a bad line of a test file must not cost a training."""
        for split in self.caps:
            self.table(split)

    @property
    def accumulation(self) -> int:
        """Micro-batches of one optimiser step on each process; raises UserError where they are none."""
        return accumulation(self.batch_size, self.micro_batch_size, self._world_size)

    def train_dataloader(self) -> DataLoader:
        """Give the micro-batches from the trainer's optimiser step (0 without one) to `max_steps`."""
        table = self.table("train")
        inputs, targets = values(table, "input_length"), values(table, "target_length")
        sizes = np.bincount(values(table, "dataset"), minlength=len(self.mixture.train))
        plan = BatchPlan(
            # An encoder's input is much the longer; a decoder-only model reads both as one text.
            inputs if self.tokenization.is_encoder_decoder else inputs + targets,
            targets,
            sizes,
            mixing_rates(sizes, self.mixture.temperature, self.mixture.cap),
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            max_steps=self.max_steps,
            seed=self.seed,
            start=self.trainer.global_step if self.trainer else 0,
            rank=self._rank,
            world_size=self._world_size,
        )
        return _TrainLoader(_TrainBatches(table, self.collator), **self._loading(plan))

    def eval_loader(self, split: str, indices: Collection[int] | None = None) -> DataLoader:
        """Give the evaluation batches of a split (`validation` or `test`).

        indices: which datasets, as indices in `mixture.evaluate`; None is all that the split covers.
        Every process has as many batches, for which the shortest example may be in several of them; a batch
        mixes datasets, as like lengths generate fast.
        """
        table = self.table(split)
        members = values(table, "dataset")
        rows = np.flatnonzero(np.isin(members, members if indices is None else list(indices)))
        plan = EvaluationPlan(
            rows, values(table, "input_length"), self.eval_batch_size, self._rank, self._world_size
        )
        return DataLoader(_EvaluationBatches(table, self.collator), **self._loading(plan))

    def val_dataloader(self) -> DataLoader:
        """Give the validation data of seen datasets of the reported tasks: all that selection may see."""
        return self.eval_loader("validation")

    def test_dataloader(self) -> DataLoader:
        """Give the test data of every evaluated dataset."""
        return self.eval_loader("test")

    def _loading(self, plan: BatchPlan | EvaluationPlan) -> dict[str, Any]:
        return {"sampler": plan, "batch_size": None, "collate_fn": _as_is, "num_workers": self.workers}

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _as_is(batch: dict[str, Any]) -> dict[str, Any]:
    """Stand in for torch's own conversion, which makes lists of the features' tuples."""
    return batch


class _TrainLoader(DataLoader):
    """Resumable in Lightning's sense, with no state: where it stands follows from the trainer's step."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class _TrainBatches(TorchDataset):
    def __init__(self, table: datasets.Dataset, collator: Collator):
        self.table, self.collator = table, collator

    def __getitem__(self, micro: MicroBatch) -> dict[str, Any]:
        rows = self.table[micro.rows]
        return {
            **self.collator.for_training(rows["input_ids"], rows["target_ids"]),
            "features": [tuple(features) for features in rows["features"]],
            "ids": rows["id"],
            "step": micro.step,
            "target_tokens": micro.target_tokens,
            "own_target_tokens": sum(map(len, rows["target_ids"])),
            "examples": micro.examples,
        }


class _EvaluationBatches(TorchDataset):
    def __init__(self, table: datasets.Dataset, collator: Collator):
        self.table, self.collator = table, collator

    def __getitem__(self, index: list[int]) -> dict[str, Any]:
        rows = self.table[index]
        return {
            **self.collator.for_generation(rows["input_ids"]),
            "features": [tuple(features) for features in rows["features"]],
            "ids": rows["id"],
            "dataset": torch.tensor(rows["dataset"]),
            "position": torch.tensor(rows["position"]),
            "targets": rows["target"],
        }
