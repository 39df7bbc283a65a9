"""Language codes of the data, and their English names for prompts."""

import difflib
from functools import cache

from babel import Locale

from flix_lightning.common.errors import UserError

# XTREME-UP's own codes, and languages that CLDR's list of English names lacks.
_NOT_IN_CLDR = {
    "bn_cs": "code-switched Bengali",
    "de_localized": "localized German",
    "gbm": "Garhwali",
    "gom": "Goan Konkani",
    "hi_cs": "code-switched Hindi",
    "hne": "Chhattisgarhi",
    "pt_br": "Brazilian Portuguese",
    "ta_cs": "code-switched Tamil",
}


@cache
def _names() -> dict[str, str]:
    return {**Locale("en").languages, **_NOT_IN_CLDR}


def is_known(code: str) -> bool:
    """Return whether `code` is a language code of CLDR (ISO 639) or one of XTREME-UP's own."""
    return code in _names()


def language_name(code: str, place: str = "") -> str:
    """Return the English name of a language code: `sw` -> `Swahili`.

    Raises:
        UserError: The code is unknown. The error begins with `place`, if given, and names the nearest codes.
    """
    names = _names()
    if code in names:
        return names[code]
    codes = {name.lower(): known for known, name in names.items()}
    near = [codes.get(word, word) for word in difflib.get_close_matches(code.lower(), [*codes, *names])]
    known = ", ".join(f"{one} ({names[one]})" for one in dict.fromkeys(near))
    where, hint = f"{place}: " if place else "", f"; did you mean {known}?" if near else ""
    raise UserError(f"{where}unknown language code {code!r}{hint}")
