"""English names of languages for prompts, by the codes of the data."""

import difflib
import logging
from collections.abc import Mapping
from functools import cache

from babel import Locale
from langcodes import Language, LanguageTagError

_log = logging.getLogger(__name__)

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
def base_names() -> Mapping[str, str]:
    """Return code -> name of XTREME-UP's codes and CLDR's. They come before all other names.

    The hash of a run leaves them out.
    """
    return {**Locale("en").languages, **_NOT_IN_CLDR}


@cache
def find_name(code: str) -> str | None:
    """Return the English name of a language code, or None.

    Codes are XTREME-UP's own, and those of CLDR, BCP 47 (`zh-Hant`), ISO 639-3 (`quz`) and FLORES
    (`swh_Latn`). A name says the script only where the language is mostly written in another script:
    `yor_Latn` is Yoruba, `sr_Latn` is Serbian (Latin).
    """
    names = base_names()
    if code in names:
        return names[code]
    try:
        tag = Language.get(code)
    except LanguageTagError:
        return None
    if not tag.is_valid() or tag.language_name().startswith("Unknown language"):
        return None
    if tag.script == Language.make(language=tag.language).maximize().script:
        tag = Language.make(**{**tag.to_dict(), "script": None})
    name = names.get(tag.to_tag().replace("-", "_")) or tag.display_name()
    return name.replace(" (individual language)", "")


@cache
def warn_of_unknown(codes: tuple[str, ...]) -> None:
    """Log the codes that prompts use in place of a name, once in a process for the same codes."""
    if codes:
        _log.warning(
            "languages that no list names, so prompted by their code: %s; data.languages={%s: NAME} helps",
            ", ".join(f"{code}{_nearest(code)}" for code in codes),
            codes[0],
        )


def _nearest(code: str) -> str:
    names = base_names()
    codes = {name.lower(): known for known, name in names.items()}
    near = [codes.get(word, word) for word in difflib.get_close_matches(code.lower(), [*codes, *names])]
    known = ", ".join(f"{one}, {names[one]}" for one in dict.fromkeys(near[:1]))
    return f" (did you mean {known}?)" if near else ""
