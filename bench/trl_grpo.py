"""Measures iterations of TRL's GRPOTrainer at the sizes of bench/rl_speed.ts: `python3 bench/trl_grpo.py --threads=2`.

Written for trl 1.16.0. Prints a JSON line for each iteration: {"ms"}. Completions are generated, scored by a function that
takes no time, and learned from in one update. Dropout is 0, and no completion ends before its last token.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")

import tokenizers
import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, TrainerCallback


class Clock(TrainerCallback):
    def __init__(self):
        self.at = time.perf_counter()

    def on_step_end(self, *_, **__):
        print(json.dumps({"ms": 1000 * (time.perf_counter() - self.at)}), flush=True)
        self.at = time.perf_counter()


def main():
    parser = argparse.ArgumentParser()
    sizes = dict(threads=2, vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, rows=64, prompt=16, tokens=16, groups=8, iterations=8)
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    flags, _ = parser.parse_known_args()
    torch.set_num_threads(flags.threads)
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    disable_progress_bars()
    end, pad = flags.vocab_size, flags.vocab_size + 1
    letters = [chr(0x100 + id) for id in range(flags.vocab_size + 2)]
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({letter: id for id, letter in enumerate(letters)}, unk_token=letters[0]))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, padding_side="left", eos_token=letters[end], pad_token=letters[pad])
    config = GPT2Config(
        vocab_size=flags.vocab_size + 2, n_positions=flags.block_size, n_embd=flags.n_embd, n_layer=flags.n_layer, n_head=flags.n_head,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=end, eos_token_id=end, pad_token_id=pad,
    )  # fmt: skip
    torch.manual_seed(1337)
    prompts = ["".join(letters[id] for id in row) for row in torch.randint(0, flags.vocab_size, (flags.rows, flags.prompt)).tolist()]
    with tempfile.TemporaryDirectory() as folder:
        args = trl.GRPOConfig(
            output_dir=folder, per_device_train_batch_size=flags.rows, num_generations=flags.groups, max_steps=flags.iterations,
            max_completion_length=flags.tokens, generation_kwargs={"min_new_tokens": flags.tokens}, learning_rate=1e-5, bf16=False,
            gradient_checkpointing=False, use_cpu=True, report_to=[], logging_steps=10**9, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = trl.GRPOTrainer(
            GPT2LMHeadModel(config), reward_funcs=lambda completions, **_: [float(text.count("\u0103")) for text in completions],
            args=args, train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=tokenizer, callbacks=[Clock()],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


main()
