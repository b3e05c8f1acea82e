"""Writes example_rows.json: rows of data prepared by TRL's SFTTrainer and DPOTrainer, and the order in which a trainer
takes rows.

    python3 tests/golden/example_rows.py

The tokenizer is the second of hugging_face_tokenizers.json. A case has the columns, the options set in SFTConfig, and
the remaining rows, each with its ids and a mask of the ids that are labels. Orders come from accelerate's
SeedableRandomSampler.
"""

import json
import tempfile
from pathlib import Path

import accelerate
import torch
import transformers
import trl
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

HERE = Path(__file__).parent
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


TEXTS = [{"text": text} for text in ["Hello, world!", "", "a", "one two three four five six seven", "It ends.<|endoftext|>", "é😀 foo_bar"]]
ANSWERS = [
    {"prompt": "The capital of France is", "completion": " Paris."},
    {"prompt": "hel", "completion": "lo there"},
    {"prompt": "", "completion": "nothing before"},
    {"prompt": "nothing after", "completion": ""},
    {"prompt": "a prompt that is rather long, so that it fills all the tokens that there are", "completion": " yes"},
    {"prompt": "It ends", "completion": " here.<|endoftext|>"},
]
TURNS = [
    chat(("user", "Hi"), ("assistant", "Hello!")),
    chat(("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4"), ("user", "Sure?"), ("assistant", "Yes.")),
    chat(("assistant", "Who is there?")),
]
CHATS = [{"messages": turns} for turns in TURNS]
OLDER = [{"conversations": [{"from": m["role"], "value": m["content"]} for m in turns]} for turns in TURNS]
PARTS = [{"prompt": turns[:-1], "completion": turns[-1:]} for turns in TURNS[:2]]
CASES = [
    (TEXTS, {}),
    (TEXTS, {"max_length": 4}),
    (TEXTS, {"max_length": 4, "truncation_mode": "keep_end"}),
    (ANSWERS, {}),
    (ANSWERS, {"completion_only_loss": False}),
    (ANSWERS, {"max_length": 12}),
    (ANSWERS, {"max_length": 12, "truncation_mode": "keep_end"}),
    (CHATS, {}),
    (CHATS, {"assistant_only_loss": True}),
    (CHATS, {"assistant_only_loss": True, "max_length": 30}),
    (OLDER, {}),
    (PARTS, {}),
    (PARTS, {"completion_only_loss": False, "assistant_only_loss": True}),
    (PARTS, {"assistant_only_loss": True, "max_length": 40, "truncation_mode": "keep_end"}),
]
PAIRS = [
    {"prompt": "The capital of France is", "chosen": " Paris.", "rejected": " Rome."},
    {"prompt": "hel", "chosen": "lo there", "rejected": "p me"},
    {"prompt": "", "chosen": "nothing before", "rejected": "a"},
    {"prompt": "It ends", "chosen": " here.<|endoftext|>", "rejected": " there"},
    {"prompt": "a prompt that is rather long, so that it fills", "chosen": " all", "rejected": " all the tokens that there are"},
]
WITHOUT = [ # no answer is the beginning of the other: TRL shortens such answers
    {"chosen": "Two and two is four", "rejected": "Two and two is five"},
    {"chosen": "é😀 a", "rejected": "é😀 b"},
    {"chosen": "yes", "rejected": "no"},
]
BEGINNINGS = [turns[:-1] for turns in TURNS[:2]]
CHAT_PAIRS = [
    {"prompt": begins, "chosen": chat(("assistant", good)), "rejected": chat(("assistant", bad))}
    for begins, good, bad in zip(BEGINNINGS, ["Hello!", "Yes."], ["Go away!", "No."])
]
WHOLE = [
    {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in CHAT_PAIRS
]
PREFERENCES = [
    (PAIRS, {}),
    (PAIRS, {"max_length": 12}),
    (PAIRS, {"max_length": 12, "truncation_mode": "keep_end"}),
    (WITHOUT, {}),
    (CHAT_PAIRS, {}),
    (WHOLE, {}),
]


def prepared(rows, options, tokenizer, folder):
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=2, vocab_size=len(tokenizer), n_positions=8))
    config = SFTConfig(
        output_dir=folder, bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none", **{"max_length": 1024, **options}
    )  # fmt: skip
    trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return [
        {"ids": row["input_ids"], "learned": [int(label != -100) for label in row["labels"]]}
        for row in trainer.train_dataset
    ]


def compared(rows, options, tokenizer, folder):
    """For each pair the preferred text and the rejected text, with masks of the answer's tokens, cut by the collator."""
    model, other = (GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=2, vocab_size=len(tokenizer), n_positions=8)) for _ in range(2))
    config = DPOConfig(output_dir=folder, bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none", **options)
    trainer = DPOTrainer(
        model=model, ref_model=other, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    collate = DataCollatorForPreference(0, config.max_length, config.truncation_mode)
    left = []
    for row in trainer.train_dataset:
        batch = collate([row])
        left.append([
            {"ids": ids[there == 1].tolist(), "learned": answer[there == 1].tolist()}
            for ids, answer, there in zip(batch["input_ids"], batch["completion_mask"], batch["attention_mask"])
        ])  # fmt: skip
    return left


def orders(length, seed, epochs):
    sampler = SeedableRandomSampler(range(length), generator=torch.Generator(), data_seed=seed)
    return [index for _ in range(epochs) for index in sampler]


def main():
    files = json.loads((HERE / "hugging_face_tokenizers.json").read_text())["cases"][1]["files"]
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text)
        tokenizer = GPT2Tokenizer.from_pretrained(folder)
        tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, CHATML
        for rows, options in CASES:
            left = prepared(rows, options, tokenizer, folder)
            cases.append({"rows": rows, "options": options, "left": left})
        preferences = [
            {"rows": rows, "options": options, "left": compared(rows, options, tokenizer, folder)} for rows, options in PREFERENCES
        ]
    result = {
        "versions": {package.__name__: package.__version__ for package in (trl, transformers, accelerate, torch)},
        "template": CHATML,
        "cases": cases,
        "preferences": preferences,
        "orders": [
            {"length": length, "seed": seed, "order": orders(length, seed, 3)} for length, seed in [(1, 0), (7, 42), (100, 1337)]
        ],
        "heldOut": [
            {"length": length, "seed": seed, "order": torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()}
            for length, seed in [(2, 5), (23, 1337)]
        ],
    }
    (HERE / "example_rows.json").write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n")
    print([len(case["left"]) for case in cases])


main()
