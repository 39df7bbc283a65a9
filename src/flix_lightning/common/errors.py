"""The error for a user's mistake, and how its message suggests and lists names."""

import difflib
from collections.abc import Collection, Iterable
from itertools import islice


class UserError(ValueError):
    """A mistake in a config, a data file, a checkpoint or a command.

    Its message is one line: it names what is wrong (file, line, key, feature) and what would be right. The
    commands print that line without a traceback and exit with code 1.
    """


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Give "did you mean 'x'? " for the known name most like `name`, or "" if none is like it."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def one_line(error: object, most: int | None = None) -> str:
    """Give an error's text on one line, at most its first `most` characters."""
    return " ".join(str(error).split())[:most]


def list_names(names: Collection[str], most: int = 6) -> str:
    """Join names for a message: the first `most` of them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more
