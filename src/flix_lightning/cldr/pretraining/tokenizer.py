"""The base model's tokenizer: BPE learned from the pretraining text, single digits, bytes for the rest."""

import json
import random
from itertools import islice

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from flix_lightning.cldr.locales import LANGUAGES, PAPER_LANGUAGES, locality
from flix_lightning.cldr.pretraining.corpus import pairs
from flix_lightning.tasks.definitions import PAPER_TASKS, shipped_tasks
from flix_lightning.tasks.languages import find_name

VOCABULARY = 12288
SENTINELS = 24
TERRITORIES = 4  # times that each name of a territory is read
SAMPLE = 20_000  # pretraining examples that are read beside all names of territories and languages
ALPHABET = 2500  # characters with a token of their own; others (rare Han, Hangul) are written as bytes


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Learn a lossless tokenizer from the first SAMPLE examples of `seed`."""
    sentinels = [f"<extra_id_{i}>" for i in range(SENTINELS)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    metaspace = {"replacement": "▁", "prepend_scheme": "always"}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(**metaspace),
            # Otherwise `Kenya:` would be a token that has nothing to do with that of `Kenya,`.
            pre_tokenizers.Split(Regex(r"[\p{P}&&[^\[\]]](?=\p{P}*$)"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(**metaspace)])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>", "<unk>", *sentinels, *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=ALPHABET,
        show_progress=False,
    )
    texts = [
        shipped_tasks()[task].prompt.format(language=find_name(code), input="")
        for task in PAPER_TASKS
        for code in PAPER_LANGUAGES
    ] * 20
    for language in LANGUAGES:
        local = locality(language)
        texts += [*local.territories.values()] * TERRITORIES + [*local.languages.values()]
    # Values, skills and English tasks are written with few words: a sample has them all.
    for pair in islice(pairs(random.Random(seed)), SAMPLE):
        texts += [text for text in (pair.input, pair.target) if text]
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer makes the bytes special tokens, which decoding skips; here they are text like any other.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if not token["content"].startswith("<0x")
    ]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
