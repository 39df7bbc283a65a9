"""Which features exist, their ranks and rows; examples -> rows; feature dropout.

A feature is a string ``"kind:name"``: ``task:ner``, ``language:sw``, ``shared:all``.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch

from flix_lightning.common.errors import UserError, list_names
from flix_lightning.common.names import text_keys

logger = logging.getLogger(__name__)

#: Above it, an update would be larger than any weight.
MAX_RANK = 2**16


@dataclass(frozen=True)
class Rows:
    """The pool rows of a batch.

    Attributes:
        index: long [batch, r], r >= 1 the largest active rank; shorter rows are padded with the null row.
        uniform: every example has the same rows.
        trained: as `index`, with the null row in the place of frozen features' rows: what gradients go to.
            The same tensor as `index` where nothing is frozen.
    """

    index: torch.Tensor
    uniform: bool
    trained: torch.Tensor

    def to(self, device: torch.device | str) -> "Rows":
        """Return the same rows on `device`."""
        index = self.index.to(device)
        return Rows(index, self.uniform, index if self.trained is self.index else self.trained.to(device))


class FeatureSpace:
    """The known features in order, each with its rank and its range of pool rows.

    With R = `total_rank`, feature ranges fill rows 0 to R - 1; row R = `null_row` stands for "nothing".

    Args:
        ranks: "kind:name" -> rank.
        frozen: features, of those in `ranks`, whose rows get no gradient.

    Raises:
        UserError: a name that is not "kind:name", a rank that is not a whole number from 0 to MAX_RANK, or no
            rank above 0 that is trained.
    """

    def __init__(self, ranks: Mapping[str, int], frozen: Collection[str] = ()):
        self._ranges: dict[str, range] = {}
        self.total_rank = 0
        for feature, rank in ranks.items():
            if not all(feature.partition(":")):
                raise UserError(f'feature {feature!r} must be written "kind:name", as in task:ner')
            _check_rank(feature, rank)
            self._ranges[feature] = range(self.total_rank, self.total_rank + rank)
            self.total_rank += rank
        self.ranks = dict(ranks)
        self.null_row = self.total_rank
        self.frozen = frozenset(frozen)
        self.trained_rank = sum(rank for feature, rank in ranks.items() if feature not in self.frozen)
        if not self.trained_rank:
            raise UserError(
                f"every feature {'is frozen or ' if frozen else ''}has rank 0, so there is nothing to train: "
                "give one a rank above 0"
            )
        self._is_frozen = torch.zeros(self.total_rank + 1, dtype=torch.bool)
        self._is_frozen[self.range_of(self.frozen)] = True
        self._unknown: set[str] = set()

    def rows(self, features: Sequence[Collection[str]]) -> Rows:
        """Look up the rows of each example's features: the indicators of eq. 2.

        A feature named twice counts once; an unknown one contributes nothing (the paper's zero-shot rule),
        which is logged the first time.
        """
        self._say_unknown({name for names in features for name in names})
        rows = [[row for span in self._active(names) for row in span] for names in features]
        width = max(1, *map(len, rows))
        padded = [own + [self.null_row] * (width - len(own)) for own in rows]
        index = torch.tensor(padded)
        trained = index.masked_fill(self._is_frozen[index], self.null_row) if self.frozen else index
        return Rows(index, all(own == rows[0] for own in rows), trained)

    def range_of(self, features: Collection[str]) -> list[int]:
        """Return the rows of known features, one after another in the order given."""
        return [row for feature in features for row in self._ranges[feature]]

    def active_rank(self, features: Collection[str]) -> int:
        """Return the rank of the update that an example with these features gets."""
        return sum(map(len, self._active(features)))

    def _say_unknown(self, features: set[str]) -> None:
        # Not a difference of sets, which would go through all that are known.
        if new := sorted(name for name in features if name not in self._ranges and name not in self._unknown):
            self._unknown.update(new)
            logger.warning("never trained, so without a contribution: %s", list_names(new, 100))

    def _active(self, features: Collection[str]) -> list[range]:
        # Sorted, so that two examples that name the same features in another order still share their rows.
        known = set(features) & self._ranges.keys()
        return sorted((self._ranges[feature] for feature in known), key=lambda span: span.start)


class FeatureDropout:
    """Leave each feature of each example out with the probability of its kind, drawn anew at each step.

    A pure function of (seed, step, example id, feature): the same under any batching, accumulation, number of
    processes, recomputation or resume. What is kept is not rescaled.

    Args:
        seed: the run's seed.
        rates: a probability in [0, 1) for all kinds, or one for each kind; a kind not named is never dropped.

    Raises:
        UserError: a rate that is not a number in [0, 1).
    """

    def __init__(self, seed: int, rates: float | Mapping[str, float]):
        if isinstance(rates, Mapping):
            rates = text_keys("feature dropout", rates)
        for kind, rate in rates.items() if isinstance(rates, Mapping) else [("every kind", rates)]:
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise UserError(f"feature dropout of {kind} is {rate!r}, but must be a number in [0, 1)")
        self._seed = seed
        self._rates = rates

    def __call__(
        self, features: Sequence[Collection[str]], ids: Sequence[str], step: int
    ) -> list[tuple[str, ...]]:
        """Return what each example, named by its id, keeps of its features at optimizer step `step`."""
        return [
            tuple(feature for feature in names if self._keeps(feature, example, step))
            for names, example in zip(features, ids, strict=True)
        ]

    def _keeps(self, feature: str, example: str, step: int) -> bool:
        kind = feature.partition(":")[0]
        rate = self._rates.get(kind, 0) if isinstance(self._rates, Mapping) else self._rates
        key = f"{self._seed}\0{step}\0{example}\0{feature}".encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest()) >= rate * 2**64


def resolve_ranks(
    ranks: Mapping[str, int | str | Mapping[str, int]],
    trained: Sequence[Mapping[str, str]],
    reference: Mapping[str, int | Mapping[str, int]],
) -> dict[str, int]:
    """Turn a table of ranks into one rank for each feature that is trained.

    Args:
        ranks: kind -> a rank for all its features; or name -> rank, where `default` stands for the names not
            listed; or a word: `max_active`, the largest sum of active `reference` ranks on one trained
            dataset (the paper's compute-matched LoRA), or `total`, the sum of the `reference` ranks of all
            trained features (its param-matched LoRA).
        trained: the attributes of each trained dataset, kind -> name.
        reference: the table that the words refer to; it holds no words itself.

    Returns:
        "kind:name" -> rank, kinds in the order of `ranks`, names in the order of `trained`.

    Raises:
        UserError: nothing trained; a kind or name that no trained dataset carries; a name without a rank; a
            rank that is not a whole number from 0 to MAX_RANK or one of the words; no rank above 0.
    """
    if not trained:
        raise UserError("the list of trained datasets is empty: name at least one")
    resolved = {}
    for kind, table in text_keys("ranks", ranks).items():
        if ":" in kind:
            raise UserError(
                f"ranks.{kind}: the name of a kind has no colon, which stands before a feature's own"
            )
        names = list(dict.fromkeys(dataset[kind] for dataset in trained if kind in dataset))
        if not names:
            carried = ", ".join(dict.fromkeys(kind for dataset in trained for kind in dataset))
            raise UserError(f"ranks.{kind}: no trained dataset carries a {kind}; they carry {carried}")
        if isinstance(table, str):
            table = _matched_rank(f"ranks.{kind}", table, trained, reference)
        table = text_keys(f"ranks.{kind}", table) if isinstance(table, Mapping) else {"default": table}
        for name in sorted(table.keys() - {"default", *names}):
            raise UserError(
                f"ranks.{kind}.{name}: no trained dataset carries it; trained are {list_names(names, 100)}"
            )
        for name in names:
            if name not in table and "default" not in table:
                raise UserError(f"ranks.{kind} gives {name} no rank: add it, or a default")
            key = name if name in table else "default"
            _check_rank(f"ranks.{kind}.{key}", table[key])
            resolved[f"{kind}:{name}"] = table[key]
    if not any(resolved.values()):
        raise UserError("ranks are all 0, so there is nothing to train: give a kind a rank above 0")
    return resolved


def _matched_rank(
    key: str,
    word: str,
    trained: Sequence[Mapping[str, str]],
    reference: Mapping[str, int | Mapping[str, int]],
) -> int:
    if word not in ("max_active", "total"):
        raise UserError(f"{key} is {word!r}, but must be a whole number >= 0, max_active or total")
    ranks = resolve_ranks(reference, trained, {})
    if word == "total":
        return sum(ranks.values())
    return max(sum(ranks.get(f"{k}:{name}", 0) for k, name in dataset.items()) for dataset in trained)


def _check_rank(key: str, rank: int) -> None:
    if type(rank) is not int or not 0 <= rank <= MAX_RANK:
        raise UserError(
            f"the rank of {key} is {rank!r}, but must be a whole number >= 0, at most {MAX_RANK:,}"
        )
