"""Write one HTML page of what the finished runs hold: `python dashboard.py [out=FILE] [key=value]`.

The page is `<output>/dashboard.html` unless `out` says another. The keys are those of `python train.py -m`
that the runs were made with, without a sweep and seeds: the tables are of every seed that is there.
`data.samples=[task]` names the tasks whose texts the page may show, in the place of what the runs say.
"""

from pathlib import Path

from rich.console import Console

from flix_lightning.common import cli
from flix_lightning.common.errors import UserError

OUT = "out="


def main(arguments: list[str]) -> None:
    """Write the page and print where it is; nothing is trained.

    Raises:
        UserError: no run is there, or a key that the page has no use for.
    """
    from flix_lightning.common.files import write_atomic
    from flix_lightning.reports.dashboard.page import page

    overrides = [one for one in arguments if not one.startswith(OUT)]
    if refused := [one for one in overrides if one.startswith(("seed=", "+sweeps="))]:
        raise UserError(f"{refused[0]}: the page is of every table and of every seed that is there")
    cfg = cli.sweep_configs(overrides)[0]
    output = Path(cfg.output)
    places = [Path(one.removeprefix(OUT)) for one in arguments if one.startswith(OUT)]
    place = places[-1] if places else output / "dashboard.html"
    if place.is_dir():
        raise UserError(f"{OUT}{place} is a folder; a file is needed")
    with Console(stderr=True).status("Looking for the runs of every table"):  # some twenty seconds
        given = any(one.startswith("data.samples=") for one in overrides)
        html = page(output, overrides, cfg.data.samples if given else None)
    write_atomic(place, html)
    print(f"{place}: open it in a browser, or send it to somebody; it needs nothing else")


if __name__ == "__main__":
    cli.plain_main(main, __doc__)
