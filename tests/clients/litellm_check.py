"""LiteLLM over the server: chats, streams, completions, embeddings.

Usage: litellm_check.py URL COMPLETION_MODEL CHAT_MODEL
"""
import sys

import litellm

api_base, model, chat_model = sys.argv[1:4]
litellm.suppress_debug_info = True
common = dict(api_base=api_base, api_key="none", num_retries=0)
ask = dict(model=f"openai/{chat_model}", messages=[{"role": "user", "content": "hi"}], temperature=0, max_tokens=6)
answer = litellm.completion(**ask, **common)
assert answer.usage.completion_tokens > 0, answer
pieces = litellm.completion(**ask, stream=True, **common)
assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == answer.choices[0].message.content
text = litellm.text_completion(model=f"text-completion-openai/{model}", prompt="the ", max_tokens=6, **common)
assert text.choices[0].text
vector = litellm.embedding(model=f"openai/{model}", input=["a"], encoding_format="float", **common)
assert len(vector.data) == 1
print("checks passed")
