"""The configs of each shipped sweep, composed once for all tests, as that takes a tenth of a second each."""

from functools import cache

from flix_lightning.common import cli
from flix_lightning.reports import sweeps


@cache
def swept(name, *overrides):
    """As `python train.py -m +sweeps=<name> <overrides>` would run them."""
    sweeps.register([f"+sweeps={name}"])
    return cli.sweep_configs([f"+sweeps={name}", *overrides])
