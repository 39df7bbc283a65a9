"""Which features exist, their ranks and rows; the rows of an example; feature dropout.

A feature is a string ``"kind:name"``: ``task:ner``, ``language:sw``, ``shared:all``.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch

from flix_lightning.common.errors import UserError, list_names
from flix_lightning.common.names import text_keys

log = logging.getLogger(__name__)

MAX_RANK = 2**16  # above it, an update would be larger than any weight


@dataclass(frozen=True)
class Rows:
    """The pool rows of each example of a batch.

    Attributes:
        index: long [batch, r], where r >= 1 is the largest active rank; the null row fills shorter examples.
        uniform: whether all examples have the same rows and factors.
        factors: float [batch, r], what each row's part of the update is multiplied by; None is 1 for all.
    """

    index: torch.Tensor
    uniform: bool
    factors: torch.Tensor | None = None


class FeatureSpace:
    """The known features in order, each with its rank and its range of pool rows.

    The features fill the rows 0 to `total_rank` - 1. The next row is `null_row`, which is always zero.

    Args:
        ranks: "kind:name" -> rank.
        frozen: the features in `ranks` whose rows get no gradient.

    Raises:
        UserError: a name is not "kind:name", a rank is no whole number from 0 to MAX_RANK, or nothing is left
            to train.
    """

    def __init__(self, ranks: Mapping[str, int], frozen: Collection[str] = ()):
        self.ranks, self.frozen = dict(ranks), frozenset(frozen)
        self._ranges: dict[str, range] = {}
        self.total_rank = self.trained_rank = 0
        for feature, rank in ranks.items():
            if not all(feature.partition(":")):
                raise UserError(f'feature {feature!r} must be written "kind:name", as in task:ner')
            _check_rank(feature, rank)
            self._ranges[feature] = range(self.total_rank, self.total_rank + rank)
            self.total_rank += rank
            self.trained_rank += 0 if feature in self.frozen else rank
        if not self.trained_rank:
            reason = "is frozen or has rank 0" if frozen else "has rank 0"
            raise UserError(f"every feature {reason}, so nothing can be trained: give one a rank above 0")
        self.null_row = self.total_rank
        self._logged: set[str] = set()

    def rows(self, features: Sequence[Collection[str]], factor: Callable[[str], float] | None = None) -> Rows:
        """Return the rows of each example's features: the indicators of eq. 2.

        A feature that is named twice counts once. An unknown feature contributes nothing (the paper's
        zero-shot rule); it is logged the first time. `factor` gives what a feature's update is multiplied by.
        """
        self._log_unknown({name for names in features for name in names})
        active = [self._active(names) for names in features]
        rows = [self.range_of(names) for names in active]
        width = max(1, *map(len, rows))
        index = torch.tensor([own + [self.null_row] * (width - len(own)) for own in rows])
        factors = None
        if factor:
            own = [[factor(name) for name in names for _ in self._ranges[name]] for names in active]
            factors = torch.tensor([one + [0.0] * (width - len(one)) for one in own])
        return Rows(index, all(own == rows[0] for own in rows), factors)

    def range_of(self, features: Collection[str]) -> list[int]:
        """Return the rows of known features, in the order given."""
        return [row for feature in features for row in self._ranges[feature]]

    def active_rank(self, features: Collection[str]) -> int:
        """Return the rank of the update of an example with these features."""
        return len(self.range_of(self._active(features)))

    def _log_unknown(self, features: set[str]) -> None:
        # A difference of sets would go through all known features, which may be thousands.
        if new := sorted(name for name in features if name not in self._ranges and name not in self._logged):
            self._logged.update(new)
            log.warning("never trained, so without a contribution: %s", list_names(new, 100))

    def _active(self, features: Collection[str]) -> list[str]:
        # Sorted, so that examples that name the same features in another order have the same rows.
        return sorted(set(features) & self._ranges.keys(), key=lambda feature: self._ranges[feature].start)


class FeatureDropout:
    """Drop each feature of each example with the probability of its kind, drawn anew at each step.

    The draw is a pure function of (seed, step, example id, feature): it is the same under any batching,
    accumulation, number of processes, recomputation or resume.

    Args:
        seed: the run's seed.
        rates: one probability in [0, 1), or kind -> probability; other kinds are never dropped.
        rescale: whether the update of a kept feature is divided by 1 - its probability, as dropout is usually
            defined, so that its expectation is what evaluation has. The paper (§3.1) does not say.

    Raises:
        UserError: a rate is not a number in [0, 1).
    """

    def __init__(self, seed: int, rates: float | Mapping[str, float], rescale: bool = False):
        if isinstance(rates, Mapping):
            rates = text_keys("feature dropout", rates)
        for kind, rate in rates.items() if isinstance(rates, Mapping) else [("every kind", rates)]:
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise UserError(f"feature dropout of {kind} is {rate!r}, but must be a number in [0, 1)")
        self._seed, self._rates = seed, rates
        #: Feature -> what its update is multiplied by where it is kept, for `FeatureSpace.rows`, or None.
        self.factor = (lambda feature: 1 / (1 - self._rate(feature))) if rescale else None

    def __call__(
        self, features: Sequence[Collection[str]], ids: Sequence[str], step: int
    ) -> list[tuple[str, ...]]:
        """Return the features that each example, known by its id, keeps at optimizer step `step`."""
        return [
            tuple(feature for feature in names if self._keeps(feature, example, step))
            for names, example in zip(features, ids, strict=True)
        ]

    def _rate(self, feature: str) -> float:
        if isinstance(self._rates, Mapping):
            return self._rates.get(feature.partition(":")[0], 0)
        return self._rates

    def _keeps(self, feature: str, example: str, step: int) -> bool:
        key = f"{self._seed}\0{step}\0{example}\0{feature}".encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest()) >= self._rate(feature) * 2**64


def resolve_ranks(
    ranks: Mapping[str, int | Mapping[str, int]], trained: Sequence[Mapping[str, str]]
) -> dict[str, int]:
    """Return "kind:name" -> rank of each trained feature: kinds ordered as in `ranks`, names as in `trained`.

    Args:
        ranks: kind -> a rank for all its features; or name -> rank, with `default` for the other names.
        trained: the attributes of each trained dataset, kind -> name.

    Raises:
        UserError: nothing is trained; no trained dataset has a kind or name; a name has no rank; a rank is
            no whole number from 0 to MAX_RANK; all ranks are 0.
    """
    if not trained:
        raise UserError("the list of trained datasets is empty: name at least one")
    resolved = {}
    for kind, table in text_keys("ranks", ranks).items():
        if ":" in kind:
            raise UserError(f"ranks.{kind}: the name of a kind must not contain a colon")
        names = list(dict.fromkeys(dataset[kind] for dataset in trained if kind in dataset))
        if not names:
            carried = ", ".join(dict.fromkeys(kind for dataset in trained for kind in dataset))
            raise UserError(f"ranks.{kind}: no trained dataset carries a {kind}; they carry {carried}")
        table = text_keys(f"ranks.{kind}", table) if isinstance(table, Mapping) else {"default": table}
        for name in sorted(table.keys() - {"default", *names}):
            known = list_names(names, 100)
            raise UserError(f"ranks.{kind}.{name}: no trained dataset carries it; trained are {known}")
        for name in names:
            key = name if name in table else "default"
            if key not in table:
                raise UserError(f"ranks.{kind} gives {name} no rank: add it, or a default")
            _check_rank(f"ranks.{kind}.{key}", table[key])
            resolved[f"{kind}:{name}"] = table[key]
    if not any(resolved.values()):
        raise UserError("ranks are all 0, so nothing can be trained: give a kind a rank above 0")
    return resolved


def resolve_lora_rank(rank: int | str, ranks: Mapping[str, int], trained: Sequence[Mapping[str, str]]) -> int:
    """Return the rank of a LoRA: a whole number, or a word that says what it matches of FLix.

    Args:
        rank: a whole number; or `max_active`, the largest sum of ranks that FLix has active on one trained
            dataset (the paper's compute-matched LoRA); or `total`, the sum of the ranks of all features that
            FLix trains (its param-matched LoRA).
        ranks, trained: FLix's, as `resolve_ranks` returns and takes them.

    Raises:
        UserError: the rank is none of these.
    """
    match rank:
        case "total":
            rank = sum(ranks.values())
        case "max_active":
            rank = max(sum(ranks.get(":".join(one), 0) for one in dataset.items()) for dataset in trained)
        case str():
            raise UserError(f"flix.lora_rank is {rank!r}, but must be a whole number, max_active or total")
    _check_rank("flix.lora_rank", rank)
    return rank


def _check_rank(key: str, rank: int) -> None:
    if type(rank) is not int or not 0 <= rank <= MAX_RANK:
        wanted = f"a whole number >= 0, at most {MAX_RANK:,}"
        raise UserError(f"the rank of {key} is {rank!r}, but must be {wanted}")
