"""The one exception that a user's mistake ends in, and how its line lists many names."""

from collections.abc import Collection
from itertools import islice


class UserError(ValueError):
    """A mistake in a config, a data file, a checkpoint or a command.

    Its message is one line that names what is at fault (file, line, key, feature) and what would be
    right; the commands print that line and exit with a code other than 0, without a traceback.
    """


def some(names: Collection[str], most: int = 6) -> str:
    """List names for a line of text, of thousands the first `most` and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more
