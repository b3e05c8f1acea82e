"""OpenAI's Python client 0.28.1, which posts to /v1/engines/ENGINE/completions if an engine is given.

Usage: openai_old.py URL COMPLETION_MODEL CHAT_MODEL
"""
import sys

import openai

openai.api_base, model, chat_model = sys.argv[1:4]
openai.api_key = "none"
ask = dict(prompt="the ", max_tokens=6, temperature=0, seed=1)
named = openai.Completion.create(engine=model, **ask)
plain = openai.Completion.create(model=model, **ask)
assert named.choices[0].text == plain.choices[0].text, (named, plain)
pieces = openai.Completion.create(engine=model, stream=True, **ask)
assert "".join(piece.choices[0].text for piece in pieces) == plain.choices[0].text
answer = openai.ChatCompletion.create(model=chat_model, messages=[{"role": "user", "content": "hi"}], max_tokens=4)
assert answer.choices[0].message.role == "assistant"
assert len(openai.Embedding.create(model=model, input="a").data) == 1
assert model in [one.id for one in openai.Model.list().data]
try:
    openai.Completion.create(model="no", prompt="a")
except openai.error.InvalidRequestError as error:
    assert error.param == "model" and error.code == "model_not_found", error
else:
    raise SystemExit("an unknown model was not refused")
print("checks passed")
