"""Batches of the pretraining text, as T5 reads it: the hidden parts of a text are the target."""

import random
from collections.abc import Iterator
from itertools import islice

import torch
from torch.utils.data import IterableDataset
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from flix_lightning.cldr.pretraining.corpus import Pair, pairs
from flix_lightning.cldr.pretraining.tokenizer import SENTINELS

BATCH = 64  # examples a step
POOL = 16  # steps whose examples are sorted by length together
MAX_INPUT, MAX_TARGET = 96, 64  # tokens
NOISE, SPAN = 0.3, 3  # share of the tokens hidden from denoised text; mean tokens of a hidden span


def hide(ids: list[int], spans: list[range], sentinels: list[int]) -> tuple[list[int], list[int]]:
    """Replace `spans` of `ids`, in order, by sentinels: (input, target) of T5's span corruption."""
    source: list[int] = []
    target: list[int] = []
    position = 0
    for sentinel, span in zip(sentinels[:-1], spans, strict=False):
        source += [*ids[position : span.start], sentinel]
        target += [sentinel, *ids[span.start : span.stop]]
        position = span.stop
    return [*source, *ids[position:]], [*target, sentinels[-1]]


def random_spans(length: int, rng: random.Random) -> list[range]:
    """Return disjoint spans of `length` tokens, NOISE of them on average, SPAN tokens each on average."""
    spans = []
    position = 0
    while position < length:
        if rng.random() < NOISE / SPAN:
            stop = min(length, position + rng.randint(1, 2 * SPAN - 1))
            spans.append(range(position, stop))
            position = stop
        else:
            position += 1
    return spans


def _token_span(offsets: list[tuple[int, int]], part: tuple[int, int]) -> range:
    """Return the tokens that overlap the characters from `part[0]` to before `part[1]`."""
    tokens = [token for token, (start, stop) in enumerate(offsets) if start < part[1] and stop > part[0]]
    return range(tokens[0], tokens[-1] + 1) if tokens else range(0)


class Batches(IterableDataset):
    """Batches from step `start` to before `steps`, each from seed and step alone: resuming needs no state."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, start: int, steps: int):
        self.tokenizer, self.seed, self.start, self.steps = tokenizer, seed, start, steps
        self.sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(SENTINELS)])

    def encode(self, pair: Pair, rng: random.Random) -> tuple[list[int], list[int]]:
        """Return the token ids of `pair`'s input and target, each with the end token."""
        end = self.tokenizer.eos_token_id
        encoded = self.tokenizer(pair.input, add_special_tokens=False, return_offsets_mapping=True)
        source = encoded.input_ids
        if pair.target is None:
            source = source[:MAX_INPUT]
            if pair.hidden:
                spans = [_token_span(encoded.offset_mapping[:MAX_INPUT], part) for part in pair.hidden]
            else:
                spans = random_spans(len(source), rng)
            source, target = hide(source, [span for span in spans if span], self.sentinels)
        else:
            target = self.tokenizer(pair.target, add_special_tokens=False).input_ids
        return [*source[: MAX_INPUT - 1], end], [*target[: MAX_TARGET - 1], end]

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        collate = DataCollatorForSeq2Seq(self.tokenizer)
        for pool in range(self.start // POOL, -(-self.steps // POOL)):
            rng = random.Random(f"{self.seed}/{pool}")
            encoded = [self.encode(pair, rng) for pair in islice(pairs(rng, pool * POOL), POOL * BATCH)]
            encoded.sort(key=lambda pair: (len(pair[0]), len(pair[1])))
            order = rng.sample(range(POOL), POOL)
            for offset, block in enumerate(order):
                if self.start <= pool * POOL + offset < self.steps:
                    batch = encoded[block * BATCH : (block + 1) * BATCH]
                    yield dict(collate([{"input_ids": ids, "labels": target} for ids, target in batch]))
