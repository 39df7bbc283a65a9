"""A split as one table of token ids, written once and found again by what it is made from."""

import hashlib
import heapq
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder
from flix_lightning.data import layout as layouts
from flix_lightning.data import mixture as mixtures
from flix_lightning.data.layout import Example, Layout
from flix_lightning.data.mixture import Dataset, Mixture
from flix_lightning.data.repeats import RepeatedIds
from flix_lightning.tasks import definitions as tasks
from flix_lightning.tasks import languages

_log = logging.getLogger(__name__)

# Stands between prompt and target where both are one text, so that the model can tell where the prompt ends.
DECODER_ONLY_SEPARATOR = "\n"

#: Characters of text that are tokenised at once: what a table's making holds in memory, whatever its size.
BATCH_CHARACTERS = 2**18

#: Characters that are read for each token of the longest length, far above what a token of any text stands
#: for: what comes after is cut unread, as tokenising a line of megabytes takes hundreds of times its size.
CHARACTERS_A_TOKEN = 64

_FILE = "table.arrow"

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
    }
)


@dataclass(frozen=True)
class Tokenization:
    """How texts become token ids.

    kinds: feature kinds that an example's features are of, in this order.
    max_input_length: tokens of the prompted input, special tokens and separator included.
    max_target_length: tokens of the target, with the eos that every target ends in.
    """

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool
    kinds: tuple[str, ...]
    max_input_length: int
    max_target_length: int
    fingerprint: str = field(init=False)

    def __post_init__(self):
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                f"the tokenizer {self.tokenizer.name_or_path!r} has no eos token to end targets with"
            )
        object.__setattr__(self, "fingerprint", _tokenizer_fingerprint(self.tokenizer))

    def inputs(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Give the ids of prompted inputs, and which of them were cut."""
        separator = [] if self.is_encoder_decoder else self._plain([DECODER_ONLY_SEPARATOR])[0]
        room = self.max_input_length - len(separator)
        heads = _heads(texts, room)
        ids = self.tokenizer(heads, return_attention_mask=False, verbose=False)["input_ids"]
        cut = _cut(ids, heads, texts, room)
        for row in (row for row, is_cut in enumerate(cut) if is_cut):
            # The tokenizer cuts by itself, as it knows which special tokens must stay at the end.
            ids[row] = self.tokenizer(heads[row], truncation=True, max_length=room)["input_ids"]
        return [one + separator for one in ids], cut

    def targets(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Give the ids of targets, each ending in eos, and which of them were cut."""
        room = self.max_target_length - 1
        heads = _heads(texts, room)
        ids = self._plain(heads)
        cut = _cut(ids, heads, texts, room)
        return [[*one[:room], self.tokenizer.eos_token_id] for one in ids], cut

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return self.tokenizer(list(texts), **options)["input_ids"]


def _heads(texts: Sequence[str], room: int) -> list[str]:
    return [text[: room * CHARACTERS_A_TOKEN] for text in texts]


def _cut(ids: Sequence[Sequence[int]], heads: Sequence[str], texts: Sequence[str], room: int) -> list[bool]:
    return [
        len(one) > room or len(head) < len(text) for one, head, text in zip(ids, heads, texts, strict=True)
    ]


def tokenized(
    layout: Layout,
    mixture: Mixture,
    split: str,
    tokenization: Tokenization,
    cap: int | None,
    cache_dir: str | Path,
) -> datasets.Dataset:
    """Give a split's table, memory-mapped, from `cache_dir` where the same one was made before.

    Its address is a hash of the files' content, the tokenizer, the settings and the code that makes it.
    It is written as the files are read, so that neither has to fit in memory.
    Rows stand in the order of the mixture's datasets and, within one, of the file's lines. `cap` keeps at
    most so many examples of each dataset, those whose ids hash lowest. Inputs and targets that were cut
    are counted in one warning, and so are lines that repeat an id when the table is made. Raises UserError
    for what `Layout.read` and `Dataset.describe` refuse.
    """
    members = mixture.datasets(split)
    folder = Path(cache_dir) / f"{split}-{_address(layout, members, split, tokenization, cap)}"
    if not folder.is_dir():
        with atomic_folder(folder) as draft:
            _write(draft / _FILE, layout, members, split, tokenization, cap)
    table = datasets.Dataset.from_file(str(folder / _FILE))
    for column, limit in (
        ("input_cut", tokenization.max_input_length),
        ("target_cut", tokenization.max_target_length),
    ):
        cut = values(table, column)
        if count := int(cut.sum()):
            kind, first = column.removesuffix("_cut"), table[int(cut.argmax())]["id"]
            _log.warning(
                "%s: %d of %d %ss cut to %d tokens, the first of them %s",
                split, count, len(table), kind, limit, first,
            )  # fmt: skip
    return table


def values(table: datasets.Dataset, column: str) -> np.ndarray:
    """Give a column of numbers of a whole table, int64 [rows]."""
    return table.data.column(column).to_numpy().astype(np.int64)


def _write(
    path: Path,
    layout: Layout,
    members: Mapping[int, Dataset],
    split: str,
    tokenization: Tokenization,
    cap: int | None,
) -> None:
    repeated = RepeatedIds()
    schema = _COLUMNS.arrow_schema
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for index, dataset in members.items():
            examples = layout.read(dataset.task, split, dataset.language)
            position = 0
            for batch in _batches(_capped(repeated.watch(examples), cap)):
                rows = _rows(batch, index, dataset, position, tokenization)
                writer.write_table(pa.table(rows, schema=schema))
                position += len(batch)
    if repeated.first:
        _log.warning(
            "%s: %d lines in %d files have the id of an earlier line of their file, first %s that of %s; all "
            "are kept, as lines are told apart by their number",
            split, repeated.count, repeated.files, *repeated.first,
        )  # fmt: skip


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    batch, characters = [], 0
    for example in examples:
        batch.append(example)
        characters += len(example.input) + len(example.target)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _rows(
    examples: Sequence[Example], index: int, dataset: Dataset, position: int, tokenization: Tokenization
) -> dict[str, Sequence]:
    """Give the columns of some examples of a dataset, the first of which stands at `position`."""
    described = [dataset.describe(example, tokenization.kinds) for example in examples]
    inputs, input_cut = tokenization.inputs([example.input for example in examples])
    targets, target_cut = tokenization.targets([example.target for example in examples])
    return {
        "id": [example.id for example in examples],
        "dataset": [index] * len(examples),
        "position": range(position, position + len(examples)),
        "features": [[f"{kind}:{value}" for kind, value in one.items()] for one in described],
        "target": [example.target for example in examples],
        "input_ids": inputs,
        "target_ids": targets,
        "input_length": [len(ids) for ids in inputs],
        "target_length": [len(ids) for ids in targets],
        "input_cut": input_cut,
        "target_cut": target_cut,
    }


def _capped(examples: Iterable[Example], cap: int | None) -> Iterable[Example]:
    """Give all examples, or the `cap` whose ids hash lowest, in their own order."""
    if cap is None:
        return examples
    keyed = (
        (hashlib.blake2b(example.id.encode()).digest(), number, example)
        for number, example in enumerate(examples)
    )
    lowest = heapq.nsmallest(cap, keyed)
    return [example for _, _, example in sorted(lowest, key=lambda one: one[1])]


def _address(
    layout: Layout, members: Mapping[int, Dataset], split: str, tokenization: Tokenization, cap: int | None
) -> str:
    code = [Path(module.__file__).read_bytes() for module in (tasks, languages, layouts, mixtures)]
    code.append(Path(__file__).read_bytes())
    made_from = {
        "files": layout.fingerprint(layout.path(one.task, split, one.language) for one in members.values()),
        "datasets": [(index, one.attributes) for index, one in members.items()],
        "tokenizer": tokenization.fingerprint,
        "is_encoder_decoder": tokenization.is_encoder_decoder,
        "kinds": tokenization.kinds,
        "lengths": (tokenization.max_input_length, tokenization.max_target_length),
        "cap": cap,
        "code": [hashlib.sha256(text).hexdigest() for text in code],
    }
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]


def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.is_fast:
        # How the last call padded and cut stands in the saved file, and is no part of what it is.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    total = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()
