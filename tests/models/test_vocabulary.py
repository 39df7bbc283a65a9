"""A cut vocabulary against the whole one: the same tokens, and the same logits of them."""

import dataclasses
from functools import partial

import pytest
import torch
from families import FAMILIES
from folders import made
from tiny_runs import do, json_lines, rows
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as kinds
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from flix_lightning.common.errors import UserError
from flix_lightning.models import base as models
from flix_lightning.models import vocabulary

CORPUS = [
    f"{word} {other} {word}{number}"
    for number, word in enumerate(["nyumba", "kubwa", "ndogo", "habari", "ቤት", "house", "large"] * 3)
    for other in ("na", "ya", "የ", "nyumbani", "larger")
]
DATA = ["nyumba kubwa na nyumbani", "ቤት የ 12\nhouse", "nyumba"]
OTHER = "Xylophone ∀ ndogo"
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<unused>"]


def byte_level():
    """As GPT-2's and Qwen's."""
    backend = Tokenizer(kinds.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return backend, trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, vocab_size=350)


def byte_fallback():
    """As Gemma's and Llama's."""
    backend = Tokenizer(kinds.BPE(unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    return backend, trainers.BpeTrainer(special_tokens=special, vocab_size=350)


def unigram():
    """As mT5's."""
    backend = Tokenizer(kinds.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend, trainers.UnigramTrainer(special_tokens=SPECIAL, unk_token="<unk>", vocab_size=90)


@dataclasses.dataclass(frozen=True)
class Trained:
    """One of the families with a tokenizer that has something to cut."""

    kind: object
    template: str

    def save(self, family, folder):
        backend, trainer = self.kind()
        backend.train_from_iterator(CORPUS, trainer)
        names = [(token, backend.token_to_id(token)) for token in SPECIAL]
        backend.post_processor = processors.TemplateProcessing(single=self.template, special_tokens=names)
        roles = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
        ids = {f"{name}_token_id": names[place][1] for place, name in enumerate(("pad", "eos", "bos"))}
        more = {"vocab_size": len(tokenizer), **ids}
        if "decoder_start_token_id" in family.options:
            more["decoder_start_token_id"] = ids["eos_token_id"]
        dataclasses.replace(family, options={**family.options, **more}, generation={}).save(folder)
        tokenizer.save_pretrained(folder)
        return folder


CASES = {
    "gpt2": Trained(byte_level, "$A"),
    "qwen3": Trained(byte_level, "$A"),
    "gemma3": Trained(byte_fallback, "<bos> $A"),
    "t5": Trained(unigram, "$A <eos>"),
    "mt5": Trained(unigram, "$A <eos>"),
    "bart": Trained(byte_level, "<bos> $A <eos>"),
}


@pytest.mark.parametrize("family", CASES)
def test_a_cut_model_reads_and_says_the_same_of_the_texts(family, tmp_path):
    whole_folder = CASES[family].save(FAMILIES[family], tmp_path / "whole")
    call = partial(vocabulary.cut, str(whole_folder), "main", "float32", root=tmp_path / "models")
    folder = call(iter(DATA), "these")
    whole, small = (models.load(str(place), "main", "float32") for place in (whole_folder, folder))
    rows = small.model.get_input_embeddings().num_embeddings
    assert len(small.tokenizer) == rows == small.model.config.vocab_size
    assert rows < whole.model.config.vocab_size

    names = small.tokenizer.convert_ids_to_tokens(range(rows))
    kept = torch.tensor(whole.tokenizer.convert_tokens_to_ids(names))
    assert whole.tokenizer.convert_ids_to_tokens(kept.tolist()) == names
    for text in DATA:
        ids, own = (base.tokenizer(text, return_tensors="pt")["input_ids"] for base in (whole, small))
        assert small.tokenizer.convert_ids_to_tokens(own[0]) == whole.tokenizer.convert_ids_to_tokens(ids[0])
        said = [{}, {}]
        if whole.is_encoder_decoder:
            assert [names[id] for id in small.decoder_start] == whole.tokenizer.convert_ids_to_tokens(
                whole.decoder_start
            )
            said = [{"decoder_input_ids": ids}, {"decoder_input_ids": own}]
        with torch.no_grad():
            expected = whole.model(ids, **said[0]).logits[..., kept]
            torch.testing.assert_close(small.model(own, **said[1]).logits, expected)
    assert small.tokenizer.eos_token == whole.tokenizer.eos_token
    assert names[small.model.generation_config.eos_token_id] == "<eos>"
    decoded = [base.tokenizer.decode(base.tokenizer(OTHER)["input_ids"]) for base in (whole, small)]
    assert CASES[family].kind is unigram or decoded[0] == decoded[1]
    unread = iter(DATA)
    assert call(unread, "these") == folder
    assert list(unread) == DATA
    assert call(DATA[:1], "others") != folder


def test_a_new_version_of_the_code_makes_the_model_anew(tmp_path, monkeypatch):
    whole = str(FAMILIES["gpt2"].save(tmp_path / "whole"))
    folder = vocabulary.cut(whole, "main", "float32", DATA, "these", tmp_path)
    monkeypatch.setattr(vocabulary, "VERSION", vocabulary.VERSION + 1)
    assert vocabulary.cut(whole, "main", "float32", DATA, "these", tmp_path) != folder


def test_a_run_on_the_vocabulary_of_its_data(tiny, tmp_path):
    folder = CASES["gemma3"].save(FAMILIES["gemma3"], tmp_path / "whole")
    overrides = [f"model.pretrained={folder}", "trainer.max_steps=2", "flix.controls=[]"]
    runs = [do([*tiny, *overrides, f"model.vocabulary={which}"], tmp_path) for which in ("all", "data")]
    (cut,) = made(tmp_path / "models")
    assert len(AutoTokenizer.from_pretrained(cut)) < len(AutoTokenizer.from_pretrained(folder))
    first, second = (rows(run, split="test") for run in runs)
    assert [row["task"] for row in first] == [row["task"] for row in second]
    assert {row["target"] for row in json_lines(runs[1] / "predictions/test-all/ner/sw.jsonl")} == {
        "sw",
        "SW",
    }


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    folder = FAMILIES["gpt2"].save(tmp_path / "whole")
    backend = Tokenizer(kinds.WordLevel({"<eos>": 0, "a": 1}, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)
    with pytest.raises(UserError, match="BPE or Unigram tokenizer, and not WordLevel"):
        vocabulary.cut(str(folder), "main", "float32", ["a"], "a", tmp_path / "models")
