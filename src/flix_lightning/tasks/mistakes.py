"""What is right and wrong in a generated text, by kind, for the tasks of the paper that have structure."""

import re
from collections import Counter
from collections.abc import Callable

from flix_lightning.tasks.metrics import entities

RIGHT = "right"
INVENTED, REPEATED, NOT_AN_ENTITY = "invented", "repeated", "not an entity"
ON_TOP = (INVENTED, REPEATED, NOT_AN_ENTITY)
"""Kinds that are counted beside the targets; of the other kinds, each target is one."""
Entity = tuple[str, ...]


def of_entities(prediction: str, target: str) -> Counter[str]:
    """Count the entities of one sentence (NER) by kind.

    An entity of the target is counted once: right; "other label", if a prediction has its text; "other
    boundaries", if a prediction of its label shares a word with it; or "missed". A prediction that is none of
    these is "repeated", if the answer has it once more, or "invented". A piece that is no `LABEL: words` is
    "not an entity".
    """
    predicted, wanted = entities(prediction), entities(target)
    pieces = prediction.split(" $$ ") if prediction.strip() else []
    found = Counter({RIGHT: (predicted & wanted).total(), NOT_AN_ENTITY: len(pieces) - predicted.total()})
    given = predicted
    predicted, wanted = predicted - wanted, wanted - predicted
    for kind, alike in (("other label", _same_text), ("other boundaries", _same_label_and_a_word)):
        for entity in list(wanted.elements()):
            if partner := next((one for one in predicted.elements() if alike(one, entity)), None):
                found[kind] += 1
                predicted -= Counter([partner])
                wanted -= Counter([entity])
    repeated = sum(min(left, given[entity] - 1) for entity, left in predicted.items())
    return found + Counter(
        {"missed": wanted.total(), REPEATED: repeated, INVENTED: predicted.total() - repeated}
    )


def _same_text(one: Entity, other: Entity) -> bool:
    return one[1] == other[1]


def _same_label_and_a_word(one: Entity, other: Entity) -> bool:
    return one[0] == other[0] and not set(one[1].split()).isdisjoint(other[1].split())


def of_parse(prediction: str, target: str) -> Counter[str]:
    """Name the kind of one parse (semantic parsing).

    It is right; "malformed", if its brackets do not match; else of "other intents" or "other slots", if these
    labels, in their order, are not the target's; or of "other words", if only the words in slots differ.
    """
    if prediction == target:
        return Counter([RIGHT])
    if not _balanced(prediction):
        return Counter(["malformed"])
    for kind, label in (("other intents", "IN"), ("other slots", "SL")):
        if _labels(prediction, label) != _labels(target, label):
            return Counter([kind])
    return Counter(["other words"])


def _labels(parse: str, kind: str) -> list[str]:
    return re.findall(rf"\[{kind}:(\S+)", parse)


def _balanced(parse: str) -> bool:
    depth = 0
    for token in parse.split():
        depth += token.startswith("[") - (token == "]")
        if depth < 0:
            return False
    return depth == 0 and parse.startswith("[IN:")


#: Task -> what counts the kinds in one example: (prediction, target) -> kind -> count.
KINDS: dict[str, Callable[[str, str], Counter[str]]] = {"ner": of_entities, "semantic_parsing": of_parse}
