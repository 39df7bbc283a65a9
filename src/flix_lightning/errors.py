"""The one exception that a user's mistake ends in."""


class UserError(ValueError):
    """A mistake in a config, a data file, a checkpoint or a command.

    Its message is one line that names what is at fault (file, line, key, feature) and what would be
    right; the commands print that line and exit with a code other than 0, without a traceback.
    """
