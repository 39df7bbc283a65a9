"""A base model with the tokens alone that some texts use: a large vocabulary costs memory and time."""

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
from flix_lightning.common.files import atomic_folder
from flix_lightning.models import base as models

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ID = re.compile(r"_token_(id|index)$")
_BATCH = 1024  # texts tokenised at once


def cut(pretrained: str, revision: str, dtype: str, texts: Iterable[str], known_by: str, root: Path) -> Path:
    """The folder with a base model whose vocabulary is cut to `texts`, made on first use.

    Kept are the tokens of the texts and every token that is merged on the way to them, so that the texts
    are tokenised as before; special tokens; and single bytes, so that other texts can be tokenised at all.
    Logits of what is kept are the model's own.

    Args:
        pretrained, revision, dtype: see `flix_lightning.models.base.load`.
        texts: all that is to be read or written; gone through only when the folder is not there.
        known_by: a fingerprint of the texts.
        root: folder under which the model's own is written, named by a hash of these but the texts.

    Raises:
        UserError: the model cannot be loaded, or its tokenizer is neither BPE nor Unigram.
    """
    made_from = [models.fingerprint(pretrained, revision), dtype, Path(__file__).read_text(), known_by]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:8]
    folder = root / f"{Path(pretrained).name}-cut-{digest}"
    if not folder.is_dir():
        base = models.load(pretrained, revision, dtype)
        if not base.tokenizer.is_fast:
            raise UserError(
                f"model.vocabulary=data: {pretrained} has a tokenizer without a vocabulary to cut"
            )
        kept = _kept(base, texts)
        new = {old: place for place, old in enumerate(kept)}
        tokenizer = cut_tokenizer(base.tokenizer, new)
        cut_model(base.model, new)
        with atomic_folder(folder) as draft:
            base.model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
    return folder


def _kept(base: models.Base, texts: Iterable[str]) -> list[int]:
    """The ids to keep, in order."""
    backend = json.loads(base.tokenizer.backend_tokenizer.to_str())
    vocabulary = _vocabulary(backend)
    used = {*base.tokenizer.all_special_ids, *base.decoder_start}
    for config in (*_configs(base.model), base.model.generation_config):
        used.update(id for ids in _ids(config).values() for id in ids)
    unread = iter(texts)
    while batch := list(islice(unread, _BATCH)):
        for ids in base.tokenizer(batch, verbose=False)["input_ids"]:
            used.update(ids)
    letters = (
        pre_tokenizers.ByteLevel.alphabet() if "ByteLevel" in json.dumps(backend["pre_tokenizer"]) else []
    )
    used.update(id for token, id in vocabulary.items() if _BYTE.fullmatch(token) or token in letters)
    names = {id: token for token, id in vocabulary.items()}
    parts = defaultdict(set)
    for left, right in backend["model"].get("merges", []):
        parts[vocabulary[left + right]] |= {vocabulary[left], vocabulary[right]}
    found, waiting = set(), {id for id in used if id in names}
    while waiting:
        found |= waiting
        waiting = {part for id in waiting for part in parts[id]} - found
    return sorted(id for id in found if id < base.model.get_input_embeddings().num_embeddings)


def cut_tokenizer(tokenizer: PreTrainedTokenizerFast, new: Mapping[int, int]) -> PreTrainedTokenizerFast:
    """The tokenizer with the tokens alone whose id is in `new` (old id -> new id, from 0 on, in order).

    Raises UserError for another kind than BPE and Unigram.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    if model["type"] == "BPE":
        model["vocab"] = {token: new[id] for token, id in model["vocab"].items() if id in new}
        known = model["vocab"]
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if left in known and right in known and left + right in known
        ]
    elif model["type"] == "Unigram":
        model["vocab"] = [entry for id, entry in enumerate(model["vocab"]) if id in new]
        model["unk_id"] = new.get(model["unk_id"])
    else:
        raise UserError(f"model.vocabulary=data needs a BPE or Unigram tokenizer, and not {model['type']}")
    backend["added_tokens"] = [
        {**token, "id": new[token["id"]]} for token in backend["added_tokens"] if token["id"] in new
    ]
    ids = {token: new[id] for token, id in tokenizer.get_vocab().items() if id in new}
    _renumber_processor(backend["post_processor"], ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        clean_up_tokenization_spaces=False,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def _vocabulary(backend: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id, added tokens too."""
    vocabulary = backend["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {token: id for id, (token, _) in enumerate(vocabulary)}
    return vocabulary | {token["content"]: token["id"] for token in backend["added_tokens"]}


def _renumber_processor(processor: dict[str, Any] | None, ids: Mapping[str, int]) -> None:
    if processor is None:
        return
    for part in processor.get("processors", []):
        _renumber_processor(part, ids)
    if "special_tokens" in processor:  # that a template may put in; those it does are in every text, so kept
        known = {
            key: token
            for key, token in processor["special_tokens"].items()
            if ids.keys() >= {*token["tokens"]}
        }
        processor["special_tokens"] = known
        for token in known.values():
            token["ids"] = [ids[name] for name in token["tokens"]]
    for role in ("sep", "cls"):  # RoBERTa's
        if role in processor:
            processor[role] = [processor[role][0], ids[processor[role][0]]]


@torch.no_grad()
def cut_model(model: PreTrainedModel, new: Mapping[int, int]) -> None:
    """Leave of the embeddings, in and out, the rows whose id is in `new`; renumber what names ids."""
    kept = torch.tensor(list(new))
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    for part in (embeddings, head):
        part.weight = nn.Parameter(part.weight[kept].clone())
    embeddings.num_embeddings = head.out_features = len(new)
    embeddings.padding_idx = new.get(embeddings.padding_idx)
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias[kept].clone())
    if hasattr(model, "final_logits_bias"):  # BART's
        model.final_logits_bias = model.final_logits_bias[:, kept]
    for config in _configs(model):
        config.vocab_size = len(new)
    for config in (*_configs(model), model.generation_config):
        for name, ids in _ids(config).items():
            renumbered = [new[id] for id in ids if id in new]
            whole = isinstance(getattr(config, name), list)
            setattr(config, name, renumbered if whole else next(iter(renumbered), None))
    model.tie_weights()


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    text = model.config.get_text_config()
    return [model.config] if text is model.config else [model.config, text]


def _ids(config: PreTrainedConfig | GenerationConfig) -> dict[str, list[int]]:
    """Setting -> the token ids that it names."""
    named = {name: value for name, value in config.to_dict().items() if _ID.search(name)}
    return {
        name: value if isinstance(value, list) else [value]
        for name, value in named.items()
        if value is not None
    }
