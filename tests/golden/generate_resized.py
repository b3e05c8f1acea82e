"""Rewrites fixtures/transformers/resized.safetensors: results of transformers' GPT-2 after its vocabulary has grown.

Run by hand, with transformers 5.24 and PyTorch 2.13: `python3 tests/golden/generate_resized.py`. transformers draws new
rows around the mean of the old rows; here they are the mean itself. N.w.NAME are the weights before, N.after.NAME the
weights after; N.logits (B, T, V) and N.loss are the results after.
"""

import sys

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

sys.dont_write_bytecode = True

from fixture import Fixture
from generate_transformers import FIXTURES, TRANSPOSED

random = np.random.Generator(np.random.PCG64(20261129))
OLD, NEW, B, T = 13, 17, 2, 5


def main():
    fixture = Fixture()
    for number, tied in enumerate((True, False)):
        sizes = {"vocab_size": OLD, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(**sizes, activation_function="gelu", tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None)).double().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                values = random.standard_normal(tuple(parameter.shape)) * 0.3 + (1 if ".ln_" in name and name.endswith("weight") else 0)
                parameter.copy_(torch.from_numpy(values.astype(np.float32)).double())
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        model.resize_token_embeddings(NEW, mean_resizing=False)
        with torch.no_grad():
            for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
                embeddings.weight[OLD:] = embeddings.weight[:OLD].mean(0)
        for prefix, weights in (("w", before), ("after", dict(model.named_parameters()))):
            for name, weight in weights.items():
                if prefix == "w" and name == "lm_head.weight" and tied or prefix == "after" and "wte" not in name and "lm_head" not in name:
                    continue
                put = weight.float() if prefix == "w" else weight
                fixture.put(f"{number}.{prefix}.{name}", put.T if name.endswith(TRANSPOSED) else put)
        tokens, labels = (random.integers(0, NEW, (B, T)) for _ in range(2))
        logits = model(torch.from_numpy(tokens)).logits
        loss = torch.nn.functional.cross_entropy(logits.view(-1, NEW), torch.from_numpy(labels).view(-1))
        for key, array in {"tokens": tokens, "targets": labels, "logits": logits, "loss": loss}.items():
            fixture.put(f"{number}.{key}", array)
        config = {"vocabSize": OLD, "blockSize": 8, "nLayer": 1, "nHead": 2, "nEmbd": 8, "tieWordEmbeddings": tied}
        fixture.cases.append({"name": "tied" if tied else "untied", "config": config, "vocabSize": NEW})
    fixture.write(FIXTURES / "resized.safetensors")


main()
