"""The one exception that a user's mistake ends in, the guess at what was meant, and how to list names."""

import difflib
from collections.abc import Collection, Iterable
from itertools import islice


class UserError(ValueError):
    """A mistake in a config, a data file, a checkpoint or a command.

    Its message is one line that names what is at fault (file, line, key, feature) and what would be
    right; the commands print that line and exit with a code other than 0, without a traceback.
    """


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Give "did you mean 'x'? " for what is most like `name` among what is known; nothing is like it: ""."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def list_names(names: Collection[str], most: int = 6) -> str:
    """List names for a line of text, of thousands the first `most` and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more
