"""OpenAI's Python client with all routes that generate; it checks every answer and event against its types.

Usage: openai_strict.py URL COMPLETION_MODEL CHAT_MODEL

Three answers that are right fail the client's types, and are read without the check: a prompt's first token has no log-probability
under echo; pieces of a completion have no finish_reason before the last; and embeddings in base64, which the client itself asks for
and decodes after the check.
"""
import math
import sys

import openai

url, model, chat_model = sys.argv[1:4]
strict = openai.OpenAI(base_url=url, api_key="none", max_retries=0, _strict_response_validation=True)
loose = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
checks = 0


def check(right, what):
    global checks
    checks += 1
    if not right:
        raise SystemExit(f"wrong: {what}")


def refused(kind, param, call, code=None):
    try:
        call()
    except kind as error:
        check(error.param == param, f"param {error.param}, expected {param}")
        check(code is None or error.code == code, f"code {error.code}, expected {code}")
        check(bool(error.type) and error.message, "type and message")
    else:
        raise SystemExit(f"not refused: {param}")


# Models.
models = list(strict.models.list())
check(model in [one.id for one in models], "models.list")
check(strict.models.retrieve(model).id == model, "models.retrieve")
refused(openai.NotFoundError, "model", lambda: strict.models.retrieve("no/such"), "model_not_found")

# Completions: plain, streamed, with log-probabilities, echo, several prompts, tokens.
ask = dict(model=model, prompt="the ", max_tokens=8, temperature=0, seed=1)
plain = strict.completions.create(**ask)
check(plain.usage.completion_tokens == 8 or plain.choices[0].finish_reason == "stop", "usage")
pieces = list(loose.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
check("".join(piece.choices[0].text for piece in pieces if piece.choices) == plain.choices[0].text, "stream is plain")
check(pieces[-1].choices == [] and pieces[-1].usage.total_tokens == plain.usage.total_tokens, "usage of a stream")
check(all(piece.usage is None for piece in pieces[:-1]), "usage comes once")
probs = strict.completions.create(**ask, logprobs=3).choices[0].logprobs
check(len(probs.tokens) == len(probs.token_logprobs) == len(probs.top_logprobs) == len(probs.text_offset), "logprobs")
check(all(3 <= len(top) <= 4 for top in probs.top_logprobs), "top_logprobs")
echo = loose.completions.create(model=model, prompt="the man", max_tokens=0, echo=True, logprobs=1)
check(echo.choices[0].text == "the man" and echo.choices[0].logprobs.token_logprobs[0] is None, "echo")
check(all(p < 0 for p in echo.choices[0].logprobs.token_logprobs[1:]), "echo's log-probabilities")
both = strict.completions.create(model=model, prompt=["a", "b"], n=2, max_tokens=2, seed=5)
check([choice.index for choice in both.choices] == [0, 1, 2, 3], "prompt-major")
check(strict.completions.create(model=model, prompt=[1, 2], max_tokens=1).usage.prompt_tokens == 2, "token prompt")
check(len(strict.completions.create(model=model, prompt=[[1], [2, 3]], max_tokens=1).choices) == 2, "token prompts")
best = strict.completions.create(model=model, prompt="a", max_tokens=3, best_of=4, n=1, seed=2)
check(best.usage.completion_tokens >= 4, "best_of counts all candidates")
stop = plain.choices[0].text[2:4]
cut = strict.completions.create(**ask, stop=[stop])
check(cut.choices[0].finish_reason == "stop" and stop not in cut.choices[0].text, "stop")
banned = strict.completions.create(model=model, prompt="a", max_tokens=1, logit_bias={"3": 100}, temperature=0, logprobs=0)
check(len(banned.choices[0].logprobs.tokens) == 1, "logit_bias")
check(strict.completions.create(**ask | dict(logprobs=None, n=None, stop=None, user=None)).choices[0].text
      == plain.choices[0].text, "null is absent")
check(plain._request_id.startswith("req_"), "x-request-id")

# Chats.
talk = dict(model=chat_model, messages=[{"role": "user", "content": "hi"}], max_tokens=6, temperature=0, seed=3)
answer = strict.chat.completions.create(**talk, logprobs=True, top_logprobs=2)
content = answer.choices[0].logprobs.content
check(all(math.isfinite(one.logprob) and len(one.top_logprobs) == 2 for one in content), "chat logprobs")
chunks = list(strict.chat.completions.create(**talk, stream=True, stream_options={"include_usage": True}))
check(chunks[0].choices[0].delta.role == "assistant", "role first")
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
check(text == answer.choices[0].message.content, "chat's stream is plain")
check(chunks[-2].choices[0].finish_reason in ("stop", "length") and chunks[-1].choices == [], "finish, then usage")
with strict.chat.completions.stream(**talk) as helper:
    deltas = [event.delta for event in helper if event.type == "content.delta"]
check("".join(deltas) == text, "stream helper")
parts = [{"role": "system", "content": [{"type": "text", "text": "be kind"}]}, {"role": "user", "content": "hi"}]
strict.chat.completions.create(**talk | dict(messages=parts), n=2)
picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
refused(openai.BadRequestError, "messages[0].content[0].type",
        lambda: strict.chat.completions.create(**talk | dict(messages=picture)), "unsupported_value")
tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
refused(openai.BadRequestError, "tools", lambda: strict.chat.completions.create(**talk, tools=[tool]),
        "unsupported_parameter")
refused(openai.BadRequestError, "messages", lambda: strict.chat.completions.create(**talk | dict(
    messages=[{"role": "user", "content": "a" * 9000}])), "context_length_exceeded")

# Responses.
reply = strict.responses.create(model=chat_model, input="hi", max_output_tokens=6, temperature=0)
check(reply.output_text is not None and reply.usage.output_tokens <= 6, "responses")
events = list(strict.responses.create(model=chat_model, input=[{"role": "user", "content": "hi"}], max_output_tokens=6,
                                      temperature=0, stream=True))
check(events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete"), "events")
check([event.sequence_number for event in events] == list(range(len(events))), "sequence numbers")
check("".join(event.delta for event in events if event.type == "response.output_text.delta") == reply.output_text,
      "deltas")
refused(openai.BadRequestError, "previous_response_id",
        lambda: strict.responses.create(model=chat_model, input="hi", previous_response_id="resp_1"))

# Embeddings: base64 by default, floats on request.
vectors = [client.embeddings.create(model=model, input=["a man", "the sea"], **form).data[0].embedding
           for client, form in ((loose, {}), (strict, {"encoding_format": "float"}))]
check(all(abs(a - b) < 1e-6 for a, b in zip(*vectors)), "base64 and floats")
check(abs(sum(x * x for x in vectors[0]) - 1) < 1e-5, "length 1")
short = strict.embeddings.create(model=model, input=[[1, 2]], dimensions=3, encoding_format="float")
check(len(short.data[0].embedding) == 3, "dimensions")

# Errors.
refused(openai.NotFoundError, "model", lambda: strict.completions.create(model="no", prompt="a"), "model_not_found")
refused(openai.BadRequestError, "temperature", lambda: strict.completions.create(model=model, temperature=3, prompt=""))
refused(openai.BadRequestError, "suffix", lambda: strict.completions.create(model=model, prompt="a", suffix="b"))
refused(openai.BadRequestError, "prompt", lambda: strict.completions.create(model=model, prompt="a", max_tokens=9999),
        "context_length_exceeded")
print(f"{checks} checks passed")
