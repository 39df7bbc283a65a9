"""What kind of mistakes each method makes, in the columns of a table whose tasks have kinds of mistakes."""

from collections import Counter

from flix_lightning.reports.columns import ScoreColumn
from flix_lightning.reports.paper import DASH
from flix_lightning.reports.render import Column, Report, Section, Table
from flix_lightning.reports.tables.methods import seeds
from flix_lightning.reports.tables.scores import Scores
from flix_lightning.tasks.mistakes import KINDS, ON_TOP, RIGHT

_NOTE = (
    "Of 100 entities (NER) or parses in the test targets, over all languages together. In NER, "
    f"{', '.join(ON_TOP[:-1])} and {ON_TOP[-1]} come on top of the 100. Repeated: once more in the same "
    "answer. Other boundaries: the same label, and a word in common. Other words: only the words in slots "
    "differ. Malformed: the brackets do not match."
)


def table(scores: Scores) -> Report:
    """Show, for each column and kind, how many of 100 targets it is, one method beside the other."""
    sections = []
    for column in (column for column in scores.columns if column.task in KINDS):
        counts = [_count(scores, column, line) for line in scores.runs]
        kinds = sorted({kind for found in counts for kind in found} - {RIGHT})
        lines = [(kind, *(_share(found, kind) for found in counts)) for kind in (RIGHT, *kinds)]
        sections.append(Section(column.name, tuple(lines)))
    heads = tuple(map(Column, ("", *scores.runs)))
    notes = (_NOTE, f"{seeds([run for alike in scores.runs.values() for run in alike]).capitalize()}.")
    return Report((Table("Kinds of mistakes", heads, tuple(sections), notes),))


def _count(scores: Scores, column: ScoreColumn, line: str) -> Counter[str]:
    """Count the kinds over the languages and seeds of one line."""
    found = Counter()
    for seed in scores.seeds:
        for run, row in scores.rows(column, line, seed).values():
            for _, prediction, target in run.predictions(row):
                found += KINDS[column.task](prediction, target)
    return found


def _share(found: Counter[str], kind: str) -> str:
    targets = sum(count for own, count in found.items() if own not in ON_TOP)
    return f"{100 * found[kind] / targets:.1f}" if targets else DASH
