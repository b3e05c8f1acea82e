"""Shows that alignment.py, in f32, agrees with TRL's trainers: TRL 1.16.0 for reward models, DPO, GRPO and RLOO, 1.12.0
for PPO.

`python3 tests/golden/check_trl.py` installs both releases without their dependencies into a folder that it removes
afterwards; torch, transformers, accelerate and datasets must be installed. Each case of alignment_cases.py that TRL
supports is trained by TRL's trainer. The recorded texts, log-probabilities of the policy that wrote them, and PPO's
values and scores replace what TRL would sample or compute. Losses, gradients, advantages, metrics and the weights after
the updates must agree to 1e-5 of the largest element (or of 1).

Not compared with TRL: rankings, conservative and reference-free DPO, PPO with the score at a text's last token, without
whitening of advantages, or with pre-training. Cases avoid two errors of TRL: the prompts of
GRPO and RLOO have one length, because TRL pads on the left and counts positions from the padding; and padding has its
own id. TRL's means of PPO's approxkl and ratio include padding, and are converted; entropy_avg cannot be converted.
"""

import os
import subprocess
import sys
import tempfile
import warnings

RELEASES = {"1.16.0": ["reward", "dpo", "grpo", "rloo"], "1.12.0": ["ppo"]}
LIMIT = 1e-5

if __name__ == "__main__" and len(sys.argv) == 1:
    for version, methods in RELEASES.items():
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--root-user-action=ignore", "--target", folder]
            subprocess.run([*pip, f"trl=={version}"], check=True)
            environment = {**os.environ, "PYTHONPATH": folder, "TRL_EXPERIMENTAL_SILENCE": "1"}
            subprocess.run([sys.executable, __file__, version, *methods], check=True, env=environment)
    sys.exit()

sys.dont_write_bytecode = True
warnings.filterwarnings("ignore")
import numpy as np
import tokenizers
import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

import alignment
import alignment_cases
import alignment_modules as our
from alignment_rollouts import valued_of

disable_progress_bars()
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
letters = lambda ids: "".join(chr(97 + id) for id in ids)
SIZES = {"vocab_size": our.CONFIG.vocab_size, "n_positions": our.CONFIG.block_size, "n_embd": our.CONFIG.n_embd}
NONE = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
MARKS = {"bos_token_id": our.END, "eos_token_id": our.END, "pad_token_id": our.PAD}


def tokenizer():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({letters([i]): i for i in range(12)}, unk_token="a"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    marks = {"eos_token": letters([our.END]), "pad_token": letters([our.PAD])}
    return PreTrainedTokenizerFast(tokenizer_object=words, padding_side="left", **marks)


def turned(name, values):
    return values.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else values


def hugging_face(modules, letter, head=None):
    """A model of transformers with our weights, in f32."""
    kind = GPT2ForSequenceClassification if head else GPT2LMHeadModel
    config = GPT2Config(
        **SIZES, **NONE, **MARKS, n_layer=2, n_head=2, activation_function="gelu", num_labels=1, attn_implementation="eager"
    )
    model, start = kind(config), {**modules.start[letter], **({"score.weight": modules.start[head]["weight"]} if head else {})}
    for name, parameter in model.named_parameters():
        parameter.data = turned(name, start[name]).float().clone()
    return model


def ours(prefixes, name):
    """The name in alignment_cases.py of a parameter of TRL's model. prefixes: pairs of TRL's prefix and ours."""
    for theirs, mine in prefixes:
        if name.startswith(theirs):
            return mine + name.removeprefix(theirs)
    raise KeyError(name)


class Watch:
    """Records the losses of updates, and gradients and metrics of the first."""

    def __init__(self, case, named, prefixes):
        self.case, self.named, self.prefixes, self.losses, self.seen = case, named, prefixes, [], {}

    def parameters(self, kind, of):
        for name, parameter in self.named:
            if (values := of(parameter)) is not None:
                self.seen[f"{kind}.{ours(self.prefixes, name)}"] = turned(name, values.detach().clone())

    def compare(self, expected):
        self.seen["losses"] = torch.tensor(self.losses)
        if "learningRate" in self.case:
            self.parameters("p", lambda parameter: parameter)
        numbers = dict(zip(self.case.get("metrics", []), expected.get("m", [])))
        expected = {**expected, **{f"m.{name}": value for name, value in numbers.items()}}
        worst, compared = {}, 0
        for name, values in self.seen.items():
            if (mine := expected.get(name)) is None:
                continue
            mine = torch.as_tensor(mine).double()
            values = torch.as_tensor(values).double().reshape(mine.shape)
            off = (mine - values).abs()
            if name.startswith("p.") and name.endswith("c_attn.bias"):
                off[8:16] = 0  # the gradient of the keys' biases is 0, and Adam scales its rounding errors
            error, kind = (off.max() / max(1, mine.abs().max())).item(), name.split(".")[0]
            worst[kind], compared = max(worst.get(kind, 0), error), compared + 1
            assert error < LIMIT, (name, mine, values)
        assert compared > 20 and {"losses", "p" if "learningRate" in self.case else "g"} <= worst.keys(), self.seen.keys()
        errors = ", ".join(f"{kind} {error:.0e}" for kind, error in worst.items())
        print(f"{trl.__version__} {self.case['name']}: {compared} numbers and arrays, off by {errors}")


def arguments(case, folder, **more):
    updates = case["updates"]
    return {
        "output_dir": folder, "per_device_train_batch_size": len(updates[0][0]), "gradient_accumulation_steps": len(updates[0]),
        "max_steps": len(updates), "learning_rate": case.get("learningRate", 0.0), "lr_scheduler_type": "constant",
        "weight_decay": case.get("weightDecay", 0.0), "adam_beta2": case.get("betas", [0.9, 0.999])[1],
        "max_grad_norm": case.get("gradClip", 0), "bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": [],
        "logging_steps": 1000, "save_strategy": "no", "disable_tqdm": True, **more,
    }  # fmt: skip


def watched(base, watch, divides):
    """A trainer that records its results. divides: the Trainer, not compute_loss, divides the loss by the micro-batches."""

    class Watched(base):
        def compute_loss(self, *args, **options):
            loss = super().compute_loss(*args, **options)
            self.remove_callback(transformers.PrinterCallback)
            micro = watch.seen.setdefault("micro", [])
            micro.append((loss[0] if isinstance(loss, tuple) else loss).item())
            if len(micro) == 1 and len(watch.case["updates"][0]) == 1:
                watch.seen.update({f"m.{name}": values[-1] for name, values in self._metrics["train"].items()})
            count = len(watch.case["updates"][0])
            if len(micro) % count == 0:
                watch.losses.append(sum(micro[-count:]) / (count if divides else 1))
            return loss

    class Before(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, *args, **options):
            if len(watch.losses) == 1:
                watch.parameters("g", lambda parameter: parameter.grad)

    return Watched, [Before()]


def supervised(method, case, given, modules, folder):
    if case.get("referenceFree") or case["name"] == "conservative" or "ranked" in case["rows"][0]:
        return
    is_dpo = method == "dpo"
    model = hugging_face(modules, "w", None if is_dpo else "h")
    watch = Watch(case, list(model.named_parameters()), [("transformer.", "w.transformer."), ("score.", "h.score.")])
    rows = [case["rows"][i] for update in case["updates"] for numbers in update for i in numbers]
    more = {"train_sampling_strategy": "sequential", "max_length": 12}
    if is_dpo:
        base, more = trl.DPOTrainer, {**more, "beta": case["beta"], "loss_type": [case["lossType"]]}
        args = trl.DPOConfig(**arguments(case, folder, **more, label_smoothing=case.get("labelSmoothing", 0.0)))
        columns = {name: [letters(row[name]) for row in rows] for name in ("prompt", "chosen", "rejected")}
        others = {"ref_model": hugging_face(modules, "r")}
    else:
        base, center = trl.RewardTrainer, case.get("centerRewardsCoefficient")
        args = trl.RewardConfig(**arguments(case, folder, **more, center_rewards_coefficient=center))
        columns, others = {f"{name}_ids": [row[name] for row in rows] for name in ("chosen", "rejected")}, {}
        if "margin" in rows[0]:
            columns["margin"] = [row["margin"] for row in rows]
    trainer, callbacks = watched(base, watch, True)
    data = Dataset.from_dict(columns)
    trainer(model=model, args=args, train_dataset=data, processing_class=tokenizer(), callbacks=callbacks, **others).train()
    return watch


def spread(flat, rows):
    return our.spread(flat, our.mask_of(rows)).float()


def grouped(method, case, given, modules, folder):
    rows, updates, count = case["rows"], case["updates"], len(case["rewardWeights"])
    passes = sum(len(numbers) for update in updates for numbers in update) // len(rows)
    model = hugging_face(modules, "w")
    watch = Watch(case, list(model.named_parameters()), [("transformer.", "w.transformer.")])
    parts = len(updates) * len(updates[0]) // passes
    order = torch.tensor([i for update in updates for numbers in update for i in numbers][: len(rows)])
    more = {
        "num_generations": case["numGenerations"], "max_completion_length": our.LONGEST, "temperature": case["temperature"],
        "beta": case["beta"], "epsilon": case["epsilon"], "epsilon_high": case.get("epsilonHigh"), "num_iterations": passes,
        "steps_per_generation": parts, "shuffle_dataset": False, "reward_weights": case["rewardWeights"],
        "mask_truncated_completions": case.get("maskTruncatedCompletions", False),
    }  # fmt: skip
    if method == "rloo":
        base, config, module = trl.RLOOTrainer, trl.RLOOConfig, trl.trainer.rloo_trainer
        more["normalize_advantages"] = case["normalizeAdvantages"]
    else:
        base, config, module = trl.GRPOTrainer, trl.GRPOConfig, trl.trainer.grpo_trainer
        more |= {"loss_type": case["lossType"], "scale_rewards": case["scaleRewards"], "use_bias_correction_kl": case["biasCorrection"]}
        more |= {"delta": case.get("delta"), "importance_sampling_level": case["importanceSamplingLevel"]}
    module.shuffle_sequence_dict = lambda batch: {  # the order of the case's rows
        name: values[order] if torch.is_tensor(values) and values.dim() > 0 else values for name, values in batch.items()
    }
    shown, callbacks = watched(base, watch, method == "rloo")
    recorded = {name: spread(given[name], rows) for name in ("old", "ref") if name in given}

    class Recorded(shown):
        def _generate_single_turn(self, *_, **__):
            said = [row["ids"][row["from"] :] for row in rows]
            return said if method == "rloo" else (said, None)

        def _get_per_token_logps_and_entropies(self, model, ids, mask, keep, *args, **options):
            out = super()._get_per_token_logps_and_entropies(model, ids, mask, keep, *args, **options)
            if torch.is_grad_enabled():
                return out
            if model is self.model:  # log-probabilities of the policy that wrote the texts, which was a different model
                return (recorded["old"][:, : out[0].shape[1]], *out[1:])
            assert (out[0] - recorded["ref"])[our.mask_of(rows)].abs().max() < LIMIT
            return (recorded["ref"], *out[1:])

        def _generate_and_score_completions(self, inputs):
            out = super()._generate_and_score_completions(inputs)
            watch.seen["advantages"] = out["advantages"]
            if method == "grpo":
                out["old_per_token_logps"] = recorded["old"]
            return out

    functions = []
    for i, name in enumerate(["first", "second"][:count]):
        function = lambda completions, i=i, **_: given["rewards"][:, i].tolist()
        function.__name__ = name
        functions.append(function)
    prompts = [letters(row["ids"][: row["from"]]) for row in rows[:: case["numGenerations"]]]
    module.create_model_from_path = lambda *_, **__: hugging_face(modules, "r")  # the reference, which TRL loads by name
    Recorded(
        model=model, args=config(**arguments(case, folder, **more)), train_dataset=Dataset.from_dict({"prompt": prompts}),
        reward_funcs=functions, processing_class=tokenizer(), callbacks=callbacks,
    ).train()  # fmt: skip
    return watch


class Shared(torch.nn.Module):
    """A value model that is a head on the policy's body."""

    base_model_prefix = "transformer"

    def __init__(self, policy, head):
        super().__init__()
        self.transformer, self.score = policy.transformer, torch.nn.Linear(our.CONFIG.n_embd, 1)
        for name, parameter in self.score.named_parameters():
            parameter.data = head[name].float().clone()


def proximal(method, case, given, modules, folder):
    if case["scoreAt"] == "end" or not case["whitenAdvantages"] or "ptx" in case:
        return
    import trl.experimental.ppo.ppo_trainer as module
    from trl.experimental.ppo import PPOConfig

    rows, updates, shared = case["rows"], case["updates"], case["value"] == "shared"
    parts = len(rows) // len(updates[0][0])
    policy, reference = hugging_face(modules, "w"), hugging_face(modules, "r")
    value = Shared(policy, modules.start["h"]) if shared else hugging_face(modules, "v", "s")
    context = max(row["from"] for row in rows)
    queries = torch.tensor([[our.PAD] * (context - row["from"]) + row["ids"][: row["from"]] for row in rows])
    said = alignment.padded([row["ids"][row["from"] :] for row in rows], our.PAD)
    old, mask = spread(given["old"], rows), our.mask_of(rows)
    # Logits whose softmax is the recorded probability at the sampled token, and uniform over all other tokens.
    others = torch.log1p(-old.exp().double() * mask) - np.log(our.CONFIG.vocab_size - 1)
    logits = others[..., None].repeat(1, 1, our.CONFIG.vocab_size).scatter(2, said[..., None], old.double()[..., None]).float()
    values = our.spread(given["values"], valued_of(rows, case)).float()

    def recorded(model, *_):
        if model is value:
            full = torch.zeros(len(rows), context + our.LONGEST, 1)
            full[:, context - 1 : -1, 0] = values
            return full, None, None
        return None, given["scores"].float(), None

    orders = iter([[i for numbers in updates[at : at + parts] for i in numbers[0]] for at in range(0, len(updates), parts)])
    module.batch_generation = lambda *_: (torch.cat([queries, said], 1), logits)
    module.get_reward = recorded
    args = arguments(
        {**case, "updates": [[list(range(len(rows)))]]}, folder, num_mini_batches=parts, num_ppo_epochs=len(updates) // parts,
        total_episodes=len(rows), num_sample_generations=0, response_length=our.LONGEST, stop_token="eos",
        temperature=case["temperature"], missing_eos_penalty=case.get("missingEosPenalty"), whiten_rewards=case["whitenRewards"],
        kl_coef=case["klCoef"], kl_estimator=case["klEstimator"], cliprange=case["cliprange"],
        cliprange_value=case["cliprangeValue"], vf_coef=case["vfCoef"], gamma=case["gamma"], lam=case["lam"],
    )  # fmt: skip
    trainer = module.PPOTrainer(
        args=PPOConfig(**args), processing_class=tokenizer(), model=policy, ref_model=reference, reward_model=torch.nn.Module(),
        value_model=value, train_dataset=Dataset.from_dict({"input_ids": [row["ids"][: row["from"]] for row in rows]}),
    )  # fmt: skip
    prefixes = [
        ("policy.transformer.", "w.transformer."), ("value_model.score.", "h.v_head.summary." if shared else "s.score."),
        ("value_model.transformer.", "v.transformer."),
    ]  # fmt: skip
    watch = Watch(case, list(trainer.model.named_parameters()), prefixes)
    backward = trainer.accelerator.backward

    def watched_backward(loss):
        backward(loss)
        watch.losses.append(loss.item())
        if len(watch.losses) == 1:
            watch.parameters("g", lambda parameter: parameter.grad)

    trainer.accelerator.backward = watched_backward
    whiten = module.masked_whiten

    def watched_whiten(values, mask, shift_mean=True):
        out = whiten(values, mask, shift_mean)
        if shift_mean:
            watch.seen["advantages"] = out[our.mask_of(rows)]
            watch.seen["gae"] = values[valued_of(rows, case)]
        return out

    module.masked_whiten = watched_whiten
    logged = {}
    trainer.log = logged.update
    numpy_order, np.random.permutation = np.random.permutation, lambda count: np.array(next(orders))
    trainer.train()
    np.random.permutation = numpy_order
    if len(updates) == 1:  # with several updates, TRL's metrics are means over them, and ours are of the first update
        filled = mask.float().mean().item()
        logged["policy/approxkl_avg"] /= filled
        logged["val/ratio"] = (logged["val/ratio"] - (1 - filled)) / filled
        del logged["policy/entropy_avg"]
    watch.seen.update({f"m.{name}": value for name, value in logged.items() if len(updates) == 1 or name.startswith("objective")})
    return watch


if __name__ == "__main__":
    assert trl.__version__ == sys.argv[1], trl.__version__
    for method in sys.argv[2:]:
        modules = our.Modules(method)
        check = {"grpo": grouped, "rloo": grouped, "ppo": proximal}.get(method, supervised)
        for case, given in alignment_cases.cases(method, modules, 3 if check is grouped else None):
            expected = alignment_cases.METHODS[method][2](modules.restart(torch.float32), case, given)
            with tempfile.TemporaryDirectory() as folder:
                if watch := check(method, case, given, modules, folder):
                    watch.compare(expected)
