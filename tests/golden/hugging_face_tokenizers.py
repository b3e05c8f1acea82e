"""Writes hugging_face_tokenizers.json: two small tokenizers saved by Hugging Face's libraries, and their ids of strings.

    python3 tests/golden/hugging_face_tokenizers.py

Both are trained on the strings of tiktoken_encodings.json and encode them. The first has the older files vocab.json and
merges.txt; the second is a tokenizer.json with added tokens, as transformers writes it.
"""

import json
import tempfile
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Tokenizer

HERE = Path(__file__).parent
STRINGS = [text for text in json.loads((HERE / "tiktoken_encodings.json").read_text())["strings"] if text.isprintable() or "\n" in text]
STRINGS = [text for text in STRINGS if not any(0xD800 <= ord(c) < 0xE000 for c in text)]


def train(size, specials):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(STRINGS, trainer)
    return tokenizer


def ids(tokenizer, text):
    result = tokenizer.encode(text, add_special_tokens=False)
    return result if isinstance(result, list) else result.ids


def main():
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        train(600, ["<|endoftext|>"]).model.save(folder)
        tokenizer = GPT2Tokenizer.from_pretrained(folder)
        files = {name: Path(folder, name).read_text(encoding="utf-8") for name in ("vocab.json", "merges.txt")}
        cases.append({"files": files, "vocab_size": len(tokenizer), "ids": [ids(tokenizer, text) for text in STRINGS]})
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/tokenizer.json"
        trained = train(500, [])
        trained.add_special_tokens([AddedToken("<|endoftext|>", special=True), AddedToken("<|user|>", special=True)])
        trained.add_tokens([AddedToken("foo_bar", special=False), AddedToken("<|user|>!", special=False)])
        trained.save(path)
        GPT2Tokenizer(tokenizer_object=trained).save_pretrained(folder)
        tokenizer = GPT2Tokenizer.from_pretrained(folder)
        strings = [*STRINGS, "a foo_bar b", "<|user|>!", "<|user|>?<|endoftext|>\n<|user|", "foo_barfoo_bar"]
        files = {name: Path(folder, name).read_text(encoding="utf-8") for name in ("tokenizer.json", "tokenizer_config.json")}
        cases.append({"files": files, "vocab_size": len(tokenizer), "ids": [ids(tokenizer, text) for text in strings]})
    result = {"tokenizers": tokenizers.__version__, "strings": strings, "cases": cases}
    (HERE / "hugging_face_tokenizers.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


main()
