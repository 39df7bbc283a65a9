"""A base model whose vocabulary is cut to that of some texts: a large one costs memory and time."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import make_once
from flix_lightning.models import base as models
from flix_lightning.models.chat_template import render

#: The name of a cut model's folder depends on it. Raise it when the code below writes another model.
VERSION = 1

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_TOKEN_ID = re.compile(r"_token_(id|index)$")
_BATCH = 1024  # texts tokenized at once


def cut(
    pretrained: str,
    revision: str,
    dtype: str,
    texts: Iterable[str],
    key: str,
    root: Path,
    chat_template: bool = False,
) -> Path:
    """Return the folder with a base model whose vocabulary is cut to `texts`, made on first use.

    It keeps the tokens of the texts and all tokens that are merged on the way to them, so the texts are
    tokenized as before; special tokens; and single bytes, so that other texts can be tokenized at all. The
    logits of these tokens stay the same.

    Args:
        pretrained, revision, dtype, chat_template: see `flix_lightning.models.base.load`.
        texts: all inputs and targets; read only if the folder does not exist.
        key: a fingerprint of the texts.
        root: the folder for all such models; the model's own is named by a hash.

    Raises:
        UserError: the model cannot be loaded, or its tokenizer is neither BPE nor Unigram.
    """
    chat = ["chat"] if chat_template else []
    parts = json.dumps([models.fingerprint(pretrained, revision, chat_template), dtype, VERSION, key, *chat])
    folder = root / f"{Path(pretrained).name}-cut-{hashlib.sha256(parts.encode()).hexdigest()[:8]}"

    def write(draft: Path) -> None:
        base = models.load(pretrained, revision, dtype, chat_template)
        if not base.tokenizer.is_fast:
            raise UserError(f"model.vocabulary=data: the tokenizer of {pretrained} has no vocabulary to cut")
        forms = texts
        if chat_template:  # the template's own words too, and the tokens where it meets a text
            forms = (form for text in texts for form in (text, render(base.tokenizer, text)))
        new_ids = {old: new for new, old in enumerate(_kept_ids(base, forms))}
        tokenizer = cut_tokenizer(base.tokenizer, new_ids)
        cut_model(base.model, new_ids)
        base.model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)

    return make_once(folder, write)


def _kept_ids(base: models.Base, texts: Iterable[str]) -> list[int]:
    backend = json.loads(base.tokenizer.backend_tokenizer.to_str())
    vocabulary = base.tokenizer.get_vocab()
    used = {*base.tokenizer.all_special_ids, *base.decoder_start}
    for config in (*_configs(base.model), base.model.generation_config):
        used.update(id for ids in _token_ids(config).values() for id in ids)
    unread = iter(texts)
    while batch := list(islice(unread, _BATCH)):
        used.update(id for ids in base.tokenizer(batch, verbose=False)["input_ids"] for id in ids)
    is_byte_level = "ByteLevel" in json.dumps(backend["pre_tokenizer"])
    letters = pre_tokenizers.ByteLevel.alphabet() if is_byte_level else []
    used.update(id for token, id in vocabulary.items() if _BYTE.fullmatch(token) or token in letters)
    parts = defaultdict(set)
    for left, right in backend["model"].get("merges", []):
        parts[vocabulary[left + right]] |= {vocabulary[left], vocabulary[right]}
    kept, waiting = set(), used & set(vocabulary.values())
    while waiting:
        kept |= waiting
        waiting = {part for id in waiting for part in parts[id]} - kept
    return sorted(id for id in kept if id < base.model.get_input_embeddings().num_embeddings)


def cut_tokenizer(tokenizer: PreTrainedTokenizerFast, new_ids: Mapping[int, int]) -> PreTrainedTokenizerFast:
    """Return the tokenizer with only the tokens in `new_ids` (old id -> new id, from 0 on, in order).

    Raises UserError if it is neither BPE nor Unigram.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    if model["type"] == "BPE":
        known = {token: new_ids[id] for token, id in model["vocab"].items() if id in new_ids}
        merges = [pair for pair in model["merges"] if known.keys() >= {*pair, "".join(pair)}]
        model.update(vocab=known, merges=merges)
    elif model["type"] == "Unigram":
        model["vocab"] = [entry for id, entry in enumerate(model["vocab"]) if id in new_ids]
        model["unk_id"] = new_ids.get(model["unk_id"])
    else:
        raise UserError(f"model.vocabulary=data needs a BPE or Unigram tokenizer, and not {model['type']}")
    added = [token for token in backend["added_tokens"] if token["id"] in new_ids]
    backend["added_tokens"] = [{**token, "id": new_ids[token["id"]]} for token in added]
    ids = {token: new_ids[id] for token, id in tokenizer.get_vocab().items() if id in new_ids}
    _renumber(backend["post_processor"], ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def _renumber(processor: dict[str, Any] | None, ids: Mapping[str, int]) -> None:
    """Give the special tokens of a post-processor their new ids, in place."""
    if processor is None:
        return
    for part in processor.get("processors", []):
        _renumber(part, ids)
    if "special_tokens" in processor:  # a template may name more than it adds; what it adds was kept
        templates = processor["special_tokens"].items()
        known = {key: one for key, one in templates if ids.keys() >= {*one["tokens"]}}
        processor["special_tokens"] = known
        for token in known.values():
            token["ids"] = [ids[name] for name in token["tokens"]]
    for role in {"sep", "cls"} & processor.keys():  # RoBERTa's
        processor[role] = [processor[role][0], ids[processor[role][0]]]


@torch.no_grad()
def cut_model(model: PreTrainedModel, new_ids: Mapping[int, int]) -> None:
    """Keep only the rows in `new_ids` of the embeddings, in and out; renumber the ids in the configs."""
    kept = torch.tensor(list(new_ids))
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    for part in (embeddings, head):
        part.weight = nn.Parameter(part.weight[kept].clone())
    embeddings.num_embeddings = head.out_features = len(new_ids)
    embeddings.padding_idx = new_ids.get(embeddings.padding_idx)
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias[kept].clone())
    if hasattr(model, "final_logits_bias"):  # BART's
        model.final_logits_bias = model.final_logits_bias[:, kept]
    for config in _configs(model):
        config.vocab_size = len(new_ids)
    for config in (*_configs(model), model.generation_config):
        for name, ids in _token_ids(config).items():
            new = [new_ids[id] for id in ids if id in new_ids]
            setattr(config, name, new if isinstance(getattr(config, name), list) else next(iter(new), None))
    model.tie_weights()


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    text = model.config.get_text_config()
    return [model.config] if text is model.config else [model.config, text]


def _token_ids(config: PreTrainedConfig | GenerationConfig) -> dict[str, list[int]]:
    """Return the token ids that each setting names."""
    named = {name: value for name, value in config.to_dict().items() if _TOKEN_ID.search(name)}
    return {
        name: value if isinstance(value, list) else [value]
        for name, value in named.items()
        if value is not None
    }
