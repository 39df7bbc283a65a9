"""Lines that repeat an id of their file: kept, as lines are told apart by their number, but said aloud."""

from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np

from flix_lightning.data.layout import Example

#: Keys under which a line carries an id, where it does: XTREME-UP's NER has the first.
ID_KEYS = ("example_id", "id")


class RepeatedIds:
    """Finds the lines whose id an earlier line of the same file has; 8 bytes of memory a line.

    Attributes:
        count, files: how many such lines there are, and in how many of the files watched so far.
        first: the first of them and the line before it that has its id, as `Example.id` has them.
    """

    def __init__(self):
        self.count = self.files = 0
        self.first: tuple[str, str] | None = None

    def watch(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Pass on the examples of one file from its first line on, and count when they end."""
        hashes, file = array("Q"), ""
        for example in examples:
            given = next(
                (example.attributes[key] for key in ID_KEYS if key in example.attributes), example.id
            )
            digest = blake2b(str(given).encode(errors="surrogatepass"), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "little"))
            file = example.id.rpartition("/")[0]
            yield example
        self._count(np.frombuffer(hashes, dtype=np.uint64), file)

    def _count(self, hashes: np.ndarray, file: str) -> None:
        order = np.argsort(hashes, kind="stable")
        repeats = order[1:][hashes[order][1:] == hashes[order][:-1]]
        if not len(repeats):
            return
        self.count += len(repeats)
        self.files += 1
        if self.first is None:
            later = int(repeats.min())
            earlier = int(np.flatnonzero(hashes == hashes[later])[0])
            self.first = (f"{file}/{later + 1}", f"{file}/{earlier + 1}")
