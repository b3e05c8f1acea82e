"""Measures iterations of TRL's PPOTrainer at the sizes of bench/rl_speed.ts: `PYTHONPATH=FOLDER python3 bench/trl_ppo.py --threads=2`.

Needs trl 1.12.0, the last release that has PPOTrainer: `pip install --no-deps --target FOLDER trl==1.12.0`. Prints a JSON
line for each iteration: {"ms"}. The value model is separate from the policy, as in TRL, and scores come from a function, so
neither side runs a reward model. Dropout is 0, and no completion ends before its last token.
"""

import argparse
import json
import logging
import os
import tempfile
import time
import warnings

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
warnings.filterwarnings("ignore")

import tokenizers
import torch
import transformers
from datasets import Dataset, disable_progress_bars
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer


def main():
    parser = argparse.ArgumentParser()
    sizes = dict(threads=2, vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, rows=64, prompt=16, tokens=16, epochs=4, iterations=8)
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    disable_progress_bars()
    end, pad = flags.vocab_size, flags.vocab_size + 1  # neither is ever generated
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({chr(0x100 + i): i for i in range(flags.vocab_size + 2)}, unk_token="\u0100"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, padding_side="left", eos_token=chr(0x100 + end), pad_token=chr(0x100 + pad))
    config = GPT2Config(
        vocab_size=flags.vocab_size + 2, n_positions=flags.block_size, n_embd=flags.n_embd, n_layer=flags.n_layer, n_head=flags.n_head,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=end, eos_token_id=end, pad_token_id=pad, num_labels=1,
    )  # fmt: skip
    torch.manual_seed(1337)
    policy, reference, value = GPT2LMHeadModel(config), GPT2LMHeadModel(config), GPT2ForSequenceClassification(config)
    reference.load_state_dict(policy.state_dict())
    plain = ppo_trainer.get_reward

    def scored(model, texts, *more):
        return plain(model, texts, *more) if model is value else (None, (texts == 3).sum(1).float(), None)

    ppo_trainer.get_reward = scored
    prompts = torch.randint(0, flags.vocab_size, (flags.rows, flags.prompt)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        args = PPOConfig(
            output_dir=folder, per_device_train_batch_size=flags.rows, gradient_accumulation_steps=1, num_ppo_epochs=flags.epochs,
            num_mini_batches=1, total_episodes=flags.rows * flags.iterations, response_length=flags.tokens, num_sample_generations=0,
            local_rollout_forward_batch_size=flags.rows, report_to=[], bf16=False, gradient_checkpointing=False, use_cpu=True,
            save_strategy="no", learning_rate=1e-5, disable_tqdm=True,
        )  # fmt: skip
        trainer = PPOTrainer(
            args=args, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=torch.nn.Module(), value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": prompts}),
        )  # fmt: skip
        at = time.perf_counter()

        def log(_):
            nonlocal at
            print(json.dumps({"ms": 1000 * (time.perf_counter() - at)}), flush=True)
            at = time.perf_counter()

        trainer.log = log
        trainer.train()


main()
