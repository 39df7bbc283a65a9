"""Tables made from the rows of many runs, beside the paper's own numbers.

Each is a pure function of finished runs: which runs belong to it, and which of them are missing, is the
caller's to say.
"""

from flix_lightning.tables import dropout, gates, languages, search, table1

#: A table's name -> the files it is saved as, each with what makes it of its runs and the missing ones.
TABLES = {
    "table1": {"table1": table1.table, "table1-languages": table1.by_language},
    "gates": {"gates": gates.table},
    "table3": {"table3": dropout.table},
    "languages": {"languages": languages.table},
    "search_flix": {"search_flix": search.table},
    "search_lora": {"search_lora": search.table},
}
