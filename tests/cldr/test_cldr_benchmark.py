import hashlib
import json
import multiprocessing
import pickle
import re
import runpy
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from itertools import islice, product
from pathlib import Path
from random import Random

import babel
import pytest
import yaml
from babel.dates import format_date, format_skeleton
from babel.lists import format_list
from babel.numbers import format_currency, format_decimal, parse_decimal
from babel.units import format_unit

from flix_lightning.cldr import benchmark
from flix_lightning.cldr import examples as makers
from flix_lightning.cldr.benchmark import datasets, ensure, examples, missing_languages
from flix_lightning.cldr.examples import MAKERS
from flix_lightning.cldr.locales import CURRENCIES, LANGUAGES, UNITS, locality
from flix_lightning.cldr.pretraining.corpus import english, pairs
from flix_lightning.cldr.values import Measure, Money
from flix_lightning.common.errors import UserError
from flix_lightning.data.layout import Layout
from flix_lightning.tasks.languages import language_name
from flix_lightning.tasks.metrics import METRICS

MIXTURES = Path(__file__).parents[2] / "conf" / "mixture"
LOCALE_DATA = Path(babel.__file__).parent / "locale-data"
SIZES = {"train": 24, "validation": 5, "test": 5}
DATASETS = datasets()
LANGUAGES_OF = {task: [code for one, code in DATASETS if one == task] for task in MAKERS}

# What the design says of CLDR.
ABSENT = {"bbj", "mos", "gbm", "hne", "mwr"}
THIN = {"ny", "tn", "bho", "rw", "mni", "sa"}


def babel_code(language: str) -> str:
    return {"pt_br": "pt", "de_localized": "de", "gom": "kok", "tw": "ak"}.get(language, language)


def plain(text: str) -> str:
    """`text` with single, plain spaces and without direction marks."""
    unseen = {c for c in text if unicodedata.category(c) == "Cf" and unicodedata.bidirectional(c) != "BN"}
    return " ".join("".join(c for c in text if c not in unseen).split())


@cache
def own(language: str) -> dict:
    """The entries of a locale's own file, nothing inherited."""
    return pickle.loads((LOCALE_DATA / f"{babel_code(language)}.dat").read_bytes())


@cache
def territories(language: str) -> dict[str, str]:
    """Name -> code of a locale's own countries."""
    entries = own(language)["territories"].items()
    return {plain(name): code for code, name in entries if len(code) == 2 and isinstance(name, str)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return ensure(str(tmp_path_factory.mktemp("cldr")), **SIZES, seed=0)


@pytest.fixture(scope="module")
def lines(folder) -> dict[tuple[str, str, str], list[dict]]:
    """Every line of every file, read by nothing of ours."""
    return {
        (task, code, split): [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for task, code in DATASETS
        for split in SIZES
        for path in [folder / task / split / f"{'en2' * (task == 'translation')}{code}.jsonl"]
    }


def whole_texts(task: str, line: dict) -> list[str]:
    """The whole input and target of a line; a question's target is a single name or number."""
    if task.startswith("qa_"):
        return [line["context"], f"{line['question']} {line['context']}"]
    return [line["text" if task == "ner" else "input"], line["target"]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jsonl")}


# What there is, and where it is written


def test_datasets_are_the_papers_lists_less_what_is_lacking():
    wanted = defaultdict(set)
    for name in ("joint", "semantic_parsing_holdout"):
        mixture = yaml.safe_load((MIXTURES / f"{name}.yaml").read_text("utf-8"))
        for entry in mixture["train"] + mixture["evaluate"]:
            wanted[entry["task"]] |= set(entry["languages"])
    assert set(wanted) == set(LANGUAGES_OF)
    for task, codes in wanted.items():
        served = LANGUAGES_OF[task]
        assert len(served) == len(set(served))
        assert set(served) | set(missing_languages(task)) == codes
        assert not set(served) & set(missing_languages(task))


@pytest.mark.parametrize(
    ("task", "codes"),
    [
        ("semantic_parsing", set()),
        ("qa_in_lang", set()),
        ("qa_cross_lang", {"gbm", "hne", "mwr", "bho", "mni", "sa", "mai"}),
        ("ner", {"bbj", "mos", "ny", "tn", "rw"}),
        ("translation", ABSENT | THIN | {"en"}),
    ],
)
def test_what_is_lacking_has_its_reason(task, codes):
    reasons = missing_languages(task)
    assert set(reasons) == codes
    for code, reason in reasons.items():
        if code in ABSENT:
            assert "no locale" in reason
            assert not (LOCALE_DATA / f"{code}.dat").exists()
        elif code in THIN:
            count = sum(len(one) == 2 for one in own(code).get("territories", ()))
            assert count < 100
            assert f"{count} territories" in reason
        elif code == "mai":
            assert "year, month and day" in reason
            assert "duration-year" not in own("mai").get("unit_display_names", {})
        else:
            assert "English" in reason


def test_konkani_is_served_by_its_cldr_locale():
    assert "gom" in LANGUAGES_OF["qa_cross_lang"]
    assert locality("gom").territories["DE"] == own("kok")["territories"]["DE"]


def test_every_file_is_read_in_its_size_and_without_repetition(folder):
    layout = Layout(folder)
    for task, code in DATASETS:
        texts = Counter()
        for split, size in SIZES.items():
            read = list(layout.read(task, split, code))
            assert len(read) == size
            texts.update((example.input, example.target) for example in read)
        assert texts.total() == len(texts)
    assert len(list(folder.rglob("*.jsonl"))) == len(DATASETS) * len(SIZES)


def test_ner_lines_have_ids_of_their_own(lines):
    found = [line for (task, *_), rows in lines.items() if task == "ner" for line in rows]
    assert len({line["example_id"] for line in found}) == len(found)
    assert {line["language"] for line in found} == set(LANGUAGES_OF["ner"])


# Built whole, once, from the seed alone


def test_two_processes_at_once_give_the_same_benchmark(folder, tmp_path):
    # Fresh interpreters, so that nothing may depend on the order of a set.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        built = pool.starmap(ensure, [(str(tmp_path), *SIZES.values(), 0)] * 2, chunksize=1)
    assert [path for path in tmp_path.iterdir()] == [built[0]] == [built[1]]
    assert built[0].name == folder.name
    assert contents(built[0]) == contents(folder)


def test_the_loser_of_a_race_takes_the_winners_benchmark(tmp_path, monkeypatch):
    small = {"train": 1, "validation": 1, "test": 1, "seed": 0}
    write, winners = benchmark.write, []

    def overtaken(folder, sizes, seed):
        monkeypatch.setattr(benchmark, "write", write)
        winners.append(ensure(str(tmp_path), **small))
        write(folder, {"train": 1}, seed)

    monkeypatch.setattr(benchmark, "write", overtaken)
    assert [ensure(str(tmp_path), **small)] == winners == list(tmp_path.iterdir())
    assert len(contents(winners[0])) == 3 * len(DATASETS)


def test_a_killed_build_is_no_benchmark(folder, tmp_path):
    build = multiprocessing.get_context("spawn").Process(
        target=ensure, args=(str(tmp_path), *SIZES.values(), 0)
    )
    build.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    build.kill()
    build.join()
    (left,) = tmp_path.iterdir()
    assert 0 < len(contents(left)) < len(contents(folder))
    again = ensure(str(tmp_path), **SIZES, seed=0)
    assert again != left
    assert contents(again) == contents(folder)


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def full(folder, sizes, seed):
        (folder / "ner").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(benchmark, "write", full)
    with pytest.raises(OSError, match="No space left"):
        ensure(str(tmp_path), 1, 1, 1, 0)
    assert not list(tmp_path.iterdir())


def test_what_was_frozen_comes_out_again(tmp_path):
    shipped = yaml.safe_load((MIXTURES.parent / "data/cldr.yaml").read_text("utf-8"))["root"]
    sizes = {split: shipped[split] for split in SIZES}
    assert (sizes, shipped["seed"]) == (benchmark.FROZEN_SIZES, benchmark.FROZEN_SEED)
    folder = ensure(str(tmp_path), **sizes, seed=shipped["seed"])
    # Over each file's place and content, as `sha256sum` has them.
    files = sorted(folder.rglob("*.jsonl"))
    said = "".join(
        f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files
    )
    assert hashlib.sha256(said.encode()).hexdigest() == benchmark.FROZEN_SHA256


def test_other_content_than_was_frozen_is_refused(tmp_path, monkeypatch):
    small = {"train": 1, "validation": 1, "test": 1}
    monkeypatch.setattr(benchmark, "FROZEN_SIZES", small)
    with pytest.raises(UserError, match=r"SHA-256 \w{12}….*Babel .* 2\.18\.0 is needed"):
        ensure(str(tmp_path), **small, seed=benchmark.FROZEN_SEED)
    assert not list(tmp_path.iterdir())


def test_another_release_of_babel_writes_a_folder_of_its_own(tmp_path, monkeypatch):
    small = {"train": 1, "validation": 1, "test": 1, "seed": 0}
    first = ensure(str(tmp_path), **small)
    monkeypatch.setattr(benchmark.babel, "__version__", "2.99")
    assert ensure(str(tmp_path), **small) != first


@pytest.mark.parametrize("changed", ["seed", "train"])
def test_another_seed_or_size_is_another_benchmark(tmp_path, changed):
    first = {"train": 1, "validation": 1, "test": 1, "seed": 0}
    folders = [ensure(str(tmp_path), **arguments) for arguments in (first, first | {changed: 2})]
    assert folders[0] != folders[1]
    one, other = map(contents, folders)
    assert set(one) == set(other)
    different = {Path(file).parts[1] for file in one if one[file] != other[file]}
    assert different == (set(SIZES) if changed == "seed" else {"train"})


@pytest.mark.parametrize("bad", [0, -3, 2.5, "many"])
def test_a_size_that_is_none_is_refused(tmp_path, bad):
    with pytest.raises(UserError, match=rf"data\.root\.validation={bad}: .*whole number from 1"):
        ensure(str(tmp_path), train=1, validation=bad, test=1, seed=0)
    assert not list(tmp_path.iterdir())


# Only what the locale itself says


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_the_locales_own(language):
    local, entries = locality(language), own(language)
    for kind, names in (("territories", local.territories), ("languages", local.languages)):
        assert names == {code: plain(entries[kind][code]) for code in names}
        for code, name in entries[kind].items():
            usable = isinstance(name, str) and len(code) == 2 and code not in ("XA", "XB", "ZZ")
            if usable and len(plain(name)) <= 24 and not re.search(r"[][:;$?]", name):
                assert code in names
    assert len(set(local.territories.values())) == len(local.territories) >= 100
    assert len(entries["months"]["format"]["wide"]) == 12
    assert set(local.currencies) <= set(entries["currency_names"])
    for unit, length in local.units.items():
        assert "other" in entries["unit_patterns"][unit][length]
    for field, word in local.fields.items():
        assert word in map(plain, entries["unit_display_names"][f"duration-{field}"].values())


@pytest.mark.parametrize("language", sorted(THIN))
def test_a_thin_locale_does_not_enter_by_what_it_inherits(language):
    # Babel itself would write a date in it without a word.
    assert format_date(date(2001, 2, 3), "long", locale=language)
    assert language not in LANGUAGES
    with pytest.raises(ValueError, match=rf"^{language}: \d+ territories of its own"):
        locality(language)


def test_reading_own_entries_leaves_babels_inheritance_alone():
    assert "standard" not in own("bm").get("list_patterns", {})
    assert locality("bm").join(["a", "b"]) == "a, b"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_written_can_be_told_apart(language):
    local = locality(language)
    days = [date(1934, 6, 5), date(2034, 6, 5), date(1934, 5, 6), date(2034, 5, 6)]
    for form in ("full", "long", "medium"):
        assert len({local.date(day, form) for day in days}) == 4
    amounts = [Decimal(text) for text in ("3", "30", "3.5", "35")]
    texts = [local.write(Money(*pair)) for pair in product(amounts, local.currencies)]
    texts += [local.write(Measure(*pair)) for pair in product(amounts, local.units)]
    assert len(set(texts)) == len(texts)


# Each task against Babel itself


def atoms(target: str) -> list[tuple[str, ...]]:
    """The intents of a parse: (intent, slot values in order)."""
    slots = {"DATE": ("YEAR", "MONTH", "DAY"), "MONEY": ("AMOUNT", "CURRENCY"), "MEASURE": ("AMOUNT", "UNIT")}
    if listed := re.fullmatch(r"\[IN:LIST (.*) \]", target):
        target = listed[1]
    found = []
    for intent, body in re.findall(r"\[IN:(DATE|MONEY|MEASURE) ((?:\[SL:\w+ \S+ \] )+)\]", target):
        names, values = zip(*re.findall(r"\[SL:(\w+) (\S+) \]", body), strict=True)
        assert names == slots[intent]
        found.append((intent, *values))
    assert len(found) == (2 if listed else 1)
    return found


def forms(value: tuple[str, ...], language: str) -> list[str]:
    """All that Babel may write for a value in a language."""
    code = babel_code(language)
    match value:
        case ("DATE", year, month, day):
            when = date(int(year), int(month), int(day))
            return [plain(format_date(when, form, code)) for form in ("full", "long", "medium")]
        case ("MONEY", amount, currency):
            assert currency in CURRENCIES
            return [money(Decimal(amount), currency, code)]
        case (_, amount, unit):
            (unit,) = (one for one in UNITS if one.endswith(f"-{unit}"))
            return [
                plain(format_unit(Decimal(amount), unit, form, locale=code)) for form in ("long", "short")
            ]


def money(amount: Decimal, currency: str, code: str) -> str:
    named = {"format_type": "name", "currency_digits": False, "decimal_quantization": False}
    return plain(format_currency(amount, currency, locale=code, **named))


@pytest.mark.parametrize("language", LANGUAGES_OF["semantic_parsing"])
def test_a_parse_is_what_its_input_says(lines, language):
    intents = Counter()
    for split in SIZES:
        for line in lines["semantic_parsing", language, split]:
            values = atoms(line["target"])
            choices = product(*(forms(value, language) for value in values))
            written = {plain(format_list(list(one), locale=babel_code(language))) for one in choices}
            assert line["input"] in written
            # 34.0 is 34: one value, one target, one partition.
            assert not re.search(r"\.\d*0 ", line["target"])
            intents.update([intent for intent, *_ in values] + ["LIST"] * (len(values) == 2))
    assert set(intents) == {"DATE", "MONEY", "MEASURE", "LIST"}


def read_english(text: str) -> tuple[str, object]:
    """What an English input is about: ("places", codes), ("date", (day, form)) or ("amount", value)."""
    for form, pattern in (("full", "%A, %B %d, %Y"), ("long", "%B %d, %Y")):
        try:
            return "date", (datetime.strptime(text, pattern).date(), form)
        except ValueError:
            pass
    if amount := re.match(r"(\d+(?:\.\d+)?) ", text):
        kinds = [("MONEY", code) for code in CURRENCIES] + [("MEASURE", unit.split("-")[1]) for unit in UNITS]
        values = [(kind, amount[1], name) for kind, name in kinds]
        (value,) = (one for one in values if text in forms(one, "en"))
        return "amount", value
    names = re.split(r", and |, | and ", text)
    return "places", [territories("en")[name] for name in names]


@pytest.mark.parametrize("language", LANGUAGES_OF["translation"])
def test_a_translation_is_the_locales_own(lines, language):
    code, kinds = babel_code(language), set()
    for split in SIZES:
        for line in lines["translation", language, split]:
            kind, value = read_english(line["input"])
            kinds.add(kind)
            if kind == "date":
                day, form = value
                assert line["target"] == plain(format_date(day, form, locale=code))
            elif kind == "amount":
                assert line["target"] in forms(value, language)
            else:
                names = [own(language)["territories"][one] for one in value]
                assert line["target"] == plain(format_list(names, locale=code))
    assert len(kinds) >= 2


def days_written(text: str, language: str) -> list[date]:
    """The days that Babel writes as `text` in one of the forms that NER has."""
    (year,) = re.findall(r"\d{4}", text)
    days = (date.fromordinal(date(int(year), 1, 1).toordinal() + n) for n in range(366))
    written = ((day, form) for day in days for form in ("long", "medium"))
    return [day for day, form in written if plain(format_date(day, form, babel_code(language))) == text]


@pytest.mark.parametrize("language", LANGUAGES_OF["ner"])
def test_entities_stand_where_the_spans_say(lines, language):
    code, labels = babel_code(language), set()
    for split in SIZES:
        for line in lines["ner", language, split]:
            raw, end, pieces = line["text"].encode(), 0, []
            for span in line["spans"]:
                assert end <= span["start_byte"] < span["limit_byte"] <= len(raw)
                end = span["limit_byte"]
                entity = raw[span["start_byte"] : end].decode()
                pieces.append(f"{span['label']}: {entity}")
                labels.add(span["label"])
                match span["label"]:
                    case "LOC":
                        assert entity in territories(language)
                    case "DATE" if split == "test":  # the reference is slow
                        assert len(days_written(entity, language)) >= 1
                    case "MONEY":
                        (number,) = re.findall(r"\d[\d.,]*", entity)
                        amount = parse_decimal(number, locale=code)
                        assert entity in [money(amount, currency, code) for currency in CURRENCIES]
            assert len(pieces) in (2, 3)
            assert line["target"] == " $$ ".join(pieces)
    assert labels == {"LOC", "DATE", "MONEY"}


def test_gold_entities_score_100(lines):
    rows = [row for (task, _, _), rows in lines.items() if task == "ner" for row in rows]
    targets = [row["target"] for row in rows]
    sums = METRICS["span_f1"].counts(targets, targets).sum(axis=0)
    assert METRICS["span_f1"].score(sums) == 100
    assert sums[2] == sum(len(row["spans"]) for row in rows)  # no entity is dropped for its punctuation


def words_of(language: str, day: date) -> str:
    return plain(format_skeleton("yMMMM", day, locale=babel_code(language)))


@pytest.mark.parametrize(("task", "language"), [one for one in DATASETS if one[0].startswith("qa_")])
def test_a_question_has_one_answer_in_its_context(lines, task, language):
    told, asked = ("en" if task == "qa_cross_lang" else language), language
    fields = own(asked)["unit_display_names"]
    year, month = ({plain(text) for text in fields[f"duration-{one}"].values()} for one in ("year", "month"))
    kinds = Counter()
    for split in SIZES:
        for line in lines[task, language, split]:
            records = [record.split(": ") for record in line["context"].split("; ")]
            assert len(records) == len({name for name, _ in records}) == 4
            facts = {}
            for name, when in records:
                (number,) = re.findall(r"\d{4}", when)
                (day,) = (
                    day
                    for day in (date(int(number), one, 1) for one in range(1, 13))
                    if words_of(told, day) == when
                )
                facts[territories(told)[name]] = (name, when, day)
            assert line["target"] in line["context"]
            assert line["question"].endswith("?")
            question = line["question"][:-1]
            when_asked = [code for code, (_, _, day) in facts.items() if words_of(asked, day) == question]
            if when_asked:
                (code,) = when_asked
                assert line["target"] == facts[code][0]
                kinds["who"] += 1
                continue
            name, field = question.rsplit(", ", 1)
            _, when, day = facts[territories(asked)[name]]
            if line["target"].isdigit():
                assert field in year
                assert line["target"] == str(day.year)
            else:
                assert field in month
                # The month's name is what is left of the date once the year, and words beside it, are gone.
                assert line["target"] in when
                months = babel.Locale.parse(babel_code(told)).months
                assert line["target"] in [plain(one["wide"][day.month]) for one in months.values()]
            kinds[field in year] += 1
    assert len(kinds) == 3


# Nothing that is tested was seen


def test_nothing_tested_stands_in_training_data(lines):
    trained = {
        text
        for (task, _, split), rows in lines.items()
        if split == "train"
        for line in rows
        for text in whole_texts(task, line)
    }
    for (task, _, split), rows in lines.items():
        if split != "train":
            assert not trained & {text for line in rows for text in whole_texts(task, line)}


@pytest.fixture(scope="module")
def pretraining():
    return list(islice(pairs(Random(0)), 4000))


def test_nothing_tested_stands_in_the_pretraining(lines, pretraining):
    seen = "\n".join(f"{pair.input}\n{pair.target or ''}" for pair in pretraining)
    for (task, _, split), rows in lines.items():
        if split != "train":
            for text in {text for line in rows for text in whole_texts(task, line)}:
                # `5 days` does not stand in `145 days`.
                as_it_is = rf"(?<!\w)(?<!\d[.,]){re.escape(text)}(?!\w|[.,]\d)"
                assert text not in seen or not re.search(as_it_is, seen), text


PLACES = "DE FR ES IT JP CN IN US BR CA EG KE".split()


@pytest.fixture
def small_world(monkeypatch):
    """So few places and values that all of them come up: only their partitions keep them apart."""

    def few(language):
        local = locality(language)
        return replace(local, territories={one: local.territories[one] for one in PLACES}, languages={})

    monkeypatch.setattr(makers, "locality", few)
    monkeypatch.setattr(makers, "random_date", lambda rng: date(2001, rng.randint(1, 12), rng.randint(1, 4)))
    for name, kind in (("random_money", Money), ("random_measure", Measure)):
        monkeypatch.setattr(
            makers,
            name,
            lambda rng, choices, kind=kind: kind(Decimal(rng.randint(2, 12)), rng.choice(choices)),
        )


def test_a_value_has_one_partition_in_every_language(small_world):
    found = defaultdict(set)
    for language, split in product(("en", "sw", "ha", "bn", "ta", "ja", "am"), SIZES):
        rng = Random(f"{language}/{split}")
        for _ in range(80):
            for value in atoms(MAKERS["semantic_parsing"](language, rng, split)["target"]):
                found[value].add(split)
    assert {len(splits) for splits in found.values()} == {1}
    assert len(found) > 150


@pytest.mark.parametrize("split", ["validation", "test"])
def test_tasks_and_languages_share_no_text_across_splits(small_world, split):
    def texts(part):
        for task, language in product(
            ("semantic_parsing", "translation", "ner"), ("en", "pcm", "luo", "lg", "sw", "ha", "yo", "bm")
        ):
            rng = Random(f"{task}/{language}/{part}")
            for _ in range(50):
                yield from whole_texts(task, MAKERS[task](language, rng, part))

    trained = set(texts("train"))
    rng = Random(0)
    for task in ["semantic_parsing", "ner"] * 400:
        pair = english(task, rng)
        trained |= {pair.input.split(": ", 1)[1], pair.target}
    tested = set(texts(split))
    assert not trained & tested
    assert len(tested) > 300


# What the base model reads

PROMPTS = (
    "parse (.+?): ",
    "translate to (.+?): ",
    "find entities in (.+?): ",
    "answer in (.+?): ",
    "answer (.+?) in English: ",
)


def test_pretraining_has_the_tasks_in_english_only(pretraining):
    prompts = Counter()
    for pair in pretraining:
        found = [(prompt, match[1]) for prompt in PROMPTS if (match := re.match(prompt, pair.input))]
        prompts.update(found)
        if not found:
            assert pair.target is None or re.match(r"(copy|pick \d|last|drop \d|reverse): ", pair.input)
            assert not re.search(r"\[IN:|\$\$|(LOC|DATE|MONEY): |question: ", f"{pair.input} {pair.target}")
    assert {language for _, language in prompts} == {"English"}
    assert len(prompts) == 4
    assert not any(prompt.startswith("translate") for prompt, _ in prompts)


def test_pretraining_tasks_are_english_throughout(pretraining):
    for pair in pretraining:
        if pair.input.startswith("parse"):
            choices = product(*(forms(value, "en") for value in atoms(pair.target)))
            assert pair.input.split(": ", 1)[1] in {plain(format_list(one, locale="en")) for one in choices}
        elif pair.input.startswith("find"):
            places = [piece.split(": ")[1] for piece in pair.target.split(" $$ ") if piece.startswith("LOC")]
            assert set(places) <= set(territories("en"))
        elif pair.input.startswith("answer"):
            context = pair.input.split(" context: ")[1]
            assert {record.split(": ")[0] for record in context.split("; ")} <= set(territories("en"))


def test_skills_say_what_was_done(pretraining):
    done = Counter()
    for pair in pretraining:
        if pair.stream != "skill":
            continue
        skill, number, listed = re.fullmatch(r"(\w+)(?: (\d))?: (.*)", pair.input).groups()
        items = listed.split("; ")
        at = int(number or 1) - 1
        wanted = {
            "copy": items,
            "pick": items[at : at + 1],
            "last": items[-1:],
            "drop": [item for n, item in enumerate(items) if n != at],
            "reverse": items[::-1],
        }[skill]
        assert pair.target.split("; ") == wanted
        done[skill] += 1
    assert len(done) == 5


def items(pair) -> list[tuple[str | None, str, bool]]:
    """The label, name and fate (hidden or not) of each item of a list of names."""
    found, at = [], 0
    for item in pair.input.split("; "):
        label, name = item.split(": ") if ": " in item else (None, item)
        start = at + len(item) - len(name)
        found.append((label, name, (start, start + len(name)) in pair.hidden))
        at += len(item) + 2
    assert sum(hidden for *_, hidden in found) == len(pair.hidden)
    return found


def test_names_are_of_one_thing_and_what_is_hidden_has_a_label(pretraining):
    codes = {language_name(code): code for code in LANGUAGES}
    labels, places = Counter(), 0
    for pair in pretraining:
        if pair.stream != "names":
            assert not pair.hidden
            continue
        named = items(pair)
        assert 1 <= sum(hidden for *_, hidden in named) < len(named)
        assert all(label for label, _, hidden in named if hidden)
        labels.update(label for label, *_ in named if label)
        if (code := dict((label, name) for label, name, _ in named).get("code")) and re.fullmatch(
            "[A-Z]{2}", code
        ):
            for label, name, _ in named:
                if label in codes:
                    assert territories(codes[label])[name] == code
                    places += 1
    assert labels.keys() == {*codes, "code"}
    assert places > 100


def test_no_word_for_month_is_listed(pretraining):
    """Years and days are counted like other units; asking for a month is for its task to teach."""
    asked = {
        (language_name(code), local.fields["month"]) for code in LANGUAGES if (local := locality(code)).fields
    }
    listed = {
        (label, name) for pair in pretraining if pair.stream == "names" for label, name, _ in items(pair)
    }
    assert len(asked) > 25
    assert not asked & listed


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_counted_is_what_stands_beside_its_number(language):
    local = locality(language)
    for amount in map(Decimal, ("2", "5", "21", "3.5")):
        number = plain(format_decimal(amount, locale=babel_code(language)))
        for code in local.currencies:
            text = money(amount, code, babel_code(language))
            assert number in text
            assert local.counted(Money(amount, code)) == " ".join(text.replace(number, " ").split())
        for unit in local.units:
            texts = forms(("MEASURE", amount, unit.partition("-")[2]), language)
            assert local.counted(Measure(amount, unit)) in [
                " ".join(t.replace(number, " ").split()) for t in texts
            ]
    for absent in set(CURRENCIES) - set(local.currencies):
        assert local.counted(Money(Decimal(2), absent)) is None
    for absent in set(UNITS) - set(local.units):
        assert local.counted(Measure(Decimal(2), absent)) is None


# The command


def command(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["flix_lightning.cldr", *arguments])
    runpy.run_module("flix_lightning.cldr", run_name="__main__", alter_sys=False)


def test_command_lists_what_there_is_and_what_is_lacking(monkeypatch, capsys):
    command(monkeypatch)
    everything = " ".join(capsys.readouterr().out.split())
    assert all(f"{task}: " in everything for task in MAKERS)
    assert "lacking rw (Kinyarwanda): 3 territories of its own" in everything
    command(monkeypatch, "ner")
    ner = " ".join(capsys.readouterr().out.split())
    assert "sw (Swahili)" in ner
    assert "lacking bbj (Ghomala): CLDR has no locale" in ner
    assert "translation" not in ner


@pytest.mark.parametrize(
    ("task", "language"), [("ner", "sw"), ("qa_cross_lang", "ur"), ("translation", "or")]
)
def test_command_shows_the_files_own_lines(monkeypatch, capsys, lines, task, language):
    command(monkeypatch, task, language, "--split", "test", "--count", "3")
    text, shown, decoder = capsys.readouterr().out, [], json.JSONDecoder()
    while text := text.strip():
        sample, end = decoder.raw_decode(text)
        shown.append(sample)
        text = text[end:]
    written = [
        {key: value for key, value in line.items() if key not in ("example_id", "language")}
        for line in lines[task, language, "test"][:3]
    ]
    assert shown == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("qa_cross_lang", "gbm"), "qa_cross_lang/gbm: CLDR has no locale"),
        (("ner", "rw"), "ner/rw: 3 territories of its own, fewer than 100"),
        (("ner", "fr"), "ner/fr: not a language of this task in the paper"),
        (("parsing", "sw"), "invalid choice: 'parsing'"),
        (("ner", "sw", "--split", "dev"), "invalid choice: 'dev'"),
    ],
)
def test_command_refuses_with_the_reason(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, *arguments)
    assert caught.value.code not in (0, None)
    assert message in capsys.readouterr().err


def test_samples_follow_from_their_arguments():
    one = examples("ner", "sw", "test", 4, seed=3)
    assert examples("ner", "sw", "test", 4, seed=3) == one == examples("ner", "sw", "test", 6, seed=3)[:4]
    assert all(one != examples("ner", "sw", split, 4, seed) for split, seed in (("test", 4), ("train", 3)))
