"""A split as one table of token ids, made once and cached under a hash of all that it depends on."""

import hashlib
import heapq
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from flix_lightning.common.files import atomic_file
from flix_lightning.data.build import build_folder
from flix_lightning.data.jsonl import WHOLE_FILE, Span, split_lines
from flix_lightning.data.layout import Example, Layout
from flix_lightning.data.mixture import Dataset, Mixture
from flix_lightning.data.tokenization import Tokenization
from flix_lightning.models.base import decode

_log = logging.getLogger(__name__)

#: Raise it when the code of the data room makes another table of the same data and settings, or cuts it into
#: other files. Prompts have a version of their own.
TABLE_VERSION = 2

#: Bytes of data files that become one file of a table.
SHARD_BYTES = 4 * 2**20

#: Characters of text that are tokenized at once, so that memory does not grow with a table.
BATCH_CHARACTERS = 2**18

#: Keys under which a line may carry an id of its own. XTREME-UP's NER has the first.
_ID_KEYS = ("example_id", "id")

_COLUMNS = datasets.Features(
    {
        "id": datasets.Value("string"),
        "dataset": datasets.Value("int32"),  # index in the mixture's list
        "position": datasets.Value("int32"),  # row within the dataset, from 0
        "features": datasets.List(datasets.Value("string")),
        "target": datasets.Value("string"),
        "input_ids": datasets.List(datasets.Value("int32")),
        "target_ids": datasets.List(datasets.Value("int32")),
        "input_length": datasets.Value("int32"),
        "target_length": datasets.Value("int32"),
        "input_cut": datasets.Value("bool"),
        "target_cut": datasets.Value("bool"),
        "target_changed": datasets.Value("bool"),  # by the tokenizer; not looked for in training data
        "own_id_hash": datasets.Value("int64"),  # of the file and the id that the line itself carries
    }
)


def tokenized(
    layout: Layout,
    mixture: Mixture,
    split: str,
    tokenization: Tokenization,
    kinds: Sequence[str],
    cap: int | None,
    cache_dir: str | Path,
) -> datasets.Dataset:
    """Return a split's memory-mapped table, which is made unless `cache_dir` has it.

    Rows stand in the order of the mixture's datasets and of the lines of their files. What was cut, what the
    tokenizer changes in targets, and lines that repeat an id are counted in one warning each.

    Args:
        kinds: Kinds of the features that examples get, in this order.
        cap: Most examples of each dataset, those whose ids have the lowest hashes. None is all.
        cache_dir: Where tables are kept, each in a folder named by a hash of all that it depends on.

    Raises:
        UserError: As `Layout.read`, `Dataset.describe` and `build_folder`.
    """
    members = mixture.datasets(split)
    depends_on = {
        "version": TABLE_VERSION,
        "files": layout.fingerprint(layout.path(one.task, split, one.language) for one in members.values()),
        "datasets": [
            [index, one.attributes, layout.tasks.render_key(one.task, one.language)]
            for index, one in members.items()
        ],
        "tokenizer": tokenization.fingerprint,
        "is_encoder_decoder": tokenization.is_encoder_decoder,
        "chat_template": tokenization.chat_template,
        "kinds": list(kinds),
        "lengths": [tokenization.max_input_length, tokenization.max_target_length],
        "cap": cap,
        "shards": SHARD_BYTES,
    }
    digest = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:16]
    folder = Path(cache_dir) / f"{split}-{digest}"
    if not folder.is_dir():
        writer = _ShardWriter(layout, split, tokenization, tuple(kinds), cap)
        shards = _shards(layout, members, split, whole_files=cap is not None)
        build_folder(folder, shards, writer.write, f"tokenizing {split}")
    files = sorted(folder.glob("*.arrow"))
    table = datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in files])
    _warn_of_cuts(table, split, tokenization)
    _warn_of_changes(table, split, tokenization)
    _warn_of_repeats(table, split)
    return table


def int_column(table: datasets.Dataset, column: str) -> np.ndarray:
    """Return a column of numbers, int64 [rows]."""
    return table.data.column(column).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class _Piece:
    """Lines of one dataset's file. `index` is the dataset's in the mixture's list."""

    index: int
    dataset: Dataset
    span: Span


def _shards(
    layout: Layout, members: Mapping[int, Dataset], split: str, whole_files: bool
) -> list[list[_Piece]]:
    """Share out the lines of a split into shards of about SHARD_BYTES."""
    shards, size = [[]], 0
    for index, dataset in members.items():
        path = layout.path(dataset.task, split, dataset.language)
        bytes_ = path.stat().st_size
        spans = [WHOLE_FILE] if whole_files or bytes_ <= SHARD_BYTES else split_lines(path, SHARD_BYTES)
        for span in spans:
            if size >= SHARD_BYTES:
                shards.append([])
                size = 0
            shards[-1].append(_Piece(index, dataset, span))
            size += bytes_ if len(spans) == 1 else SHARD_BYTES
    return shards


@dataclass(frozen=True)
class _ShardWriter:
    layout: Layout
    split: str
    tokenization: Tokenization
    kinds: tuple[str, ...]
    cap: int | None

    def write(self, path: Path, shard: Sequence[_Piece]) -> None:
        """Write the rows of a shard while its lines are read, so that neither has to fit in memory."""
        schema = _COLUMNS.arrow_schema
        with atomic_file(path) as file, pa.ipc.new_stream(file, schema) as stream:
            for batch in _batches(self._examples(shard)):
                stream.write_table(pa.table(self._columns(batch), schema=schema))

    def _examples(self, shard: Sequence[_Piece]) -> Iterator[tuple[_Piece, int, Example]]:
        for piece in shard:
            examples = self.layout.read(piece.dataset.task, self.split, piece.dataset.language, piece.span)
            chosen = examples if self.cap is None else _lowest_hashes(examples, self.cap)
            for position, example in enumerate(chosen, start=piece.span.line - 1):
                yield piece, position, example

    def _columns(self, batch: Sequence[tuple[_Piece, int, Example]]) -> dict[str, Sequence]:
        pieces, positions, examples = zip(*batch, strict=True)
        described = [piece.dataset.describe(example, self.kinds) for piece, _, example in batch]
        inputs, input_cut = self.tokenization.inputs([example.input for example in examples])
        targets, target_cut = self.tokenization.targets([example.target for example in examples])
        changed = [False] * len(batch)
        if self.split != "train":
            texts = decode(self.tokenization.tokenizer, targets)
            triples = zip(examples, texts, target_cut, strict=True)
            changed = [not cut and text != example.target for example, text, cut in triples]
        return {
            "id": [example.id for example in examples],
            "dataset": [piece.index for piece in pieces],
            "position": positions,
            "features": [[f"{kind}:{name}" for kind, name in one.items()] for one in described],
            "target": [example.target for example in examples],
            "input_ids": inputs,
            "target_ids": targets,
            "input_length": [len(ids) for ids in inputs],
            "target_length": [len(ids) for ids in targets],
            "input_cut": input_cut,
            "target_cut": target_cut,
            "target_changed": changed,
            "own_id_hash": [_own_id_hash(example) for example in examples],
        }


def _batches(
    examples: Iterable[tuple[_Piece, int, Example]],
) -> Iterator[list[tuple[_Piece, int, Example]]]:
    batch, characters = [], 0
    for one in examples:
        batch.append(one)
        characters += len(one[-1].input) + len(one[-1].target)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _lowest_hashes(examples: Iterable[Example], count: int) -> list[Example]:
    """Return the examples whose ids have the lowest hashes, in their own order."""
    keyed = (
        (hashlib.blake2b(example.id.encode()).digest(), number, example)
        for number, example in enumerate(examples)
    )
    return [example for *_, example in sorted(heapq.nsmallest(count, keyed), key=lambda one: one[1])]


def _own_id_hash(example: Example) -> int:
    own = next((example.attributes[key] for key in _ID_KEYS if key in example.attributes), example.id)
    key = f"{example.id.rpartition('/')[0]}\0{own}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), signed=True)


def _warn_of_cuts(table: datasets.Dataset, split: str, tokenization: Tokenization) -> None:
    for what, limit in ("input", tokenization.max_input_length), ("target", tokenization.max_target_length):
        cut = int_column(table, f"{what}_cut")
        if count := int(cut.sum()):
            _log.warning(
                "%s: %d of %d %ss cut to %d tokens, the first of them %s",
                split, count, len(table), what, limit, table[int(cut.argmax())]["id"],
            )  # fmt: skip


def _warn_of_changes(table: datasets.Dataset, split: str, tokenization: Tokenization) -> None:
    changed = int_column(table, "target_changed")
    if count := int(changed.sum()):
        row = table[int(changed.argmax())]
        (text,) = decode(tokenization.tokenizer, [row["target_ids"]])
        _log.warning(
            "%s: %d of %d targets are changed by the tokenizer, the first of them %s: %.60r becomes %.60r; "
            "no answer can equal such a target",
            split, count, len(table), row["id"], row["target"], text,
        )  # fmt: skip


def _warn_of_repeats(table: datasets.Dataset, split: str) -> None:
    hashes = int_column(table, "own_id_hash")
    order = np.argsort(hashes, kind="stable")
    repeats = order[1:][hashes[order][1:] == hashes[order][:-1]]
    if not len(repeats):
        return
    later = int(repeats.min())
    earlier = int(np.flatnonzero(hashes == hashes[later])[0])
    _log.warning(
        "%s: %d lines in %d files have the id of an earlier line of their file, first %s that of %s; all are "
        "kept, as lines are told apart by their number",
        split, len(repeats), len({*int_column(table, "dataset")[repeats]}), *table[[later, earlier]]["id"],
    )  # fmt: skip
