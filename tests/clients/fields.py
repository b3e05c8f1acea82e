"""Prints what the server does with each field of OpenAI's parameter classes: accepts, ignores, or refuses it by name.

Usage: fields.py URL COMPLETION_MODEL CHAT_MODEL

Reads the fields from the classes and their handling from the server's /openapi.json, tries each ignored or refused
field, and prints the table in docs/serving.md.
"""
import json
import sys
import urllib.error
import urllib.request

from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params

url, model, chat_model = sys.argv[1:4]
chat = [{"role": "user", "content": "hi"}]
ROUTES = {
    "completions": (completion_create_params.CompletionCreateParamsBase, dict(model=model, prompt="a", max_tokens=1)),
    "chat/completions": (chat_params.CompletionCreateParamsBase, dict(model=chat_model, messages=chat, max_tokens=1)),
    "responses": (response_create_params.ResponseCreateParamsBase, dict(model=chat_model, input="hi",
                                                                       max_output_tokens=1)),
    "embeddings": (embedding_create_params.EmbeddingCreateParams, dict(model=model, input="a")),
}


def post(route, body):
    request = urllib.request.Request(f"{url}/{route}", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def fields(of):
    names = {}
    for base in reversed([of, *getattr(of, "__orig_bases__", ())]):
        names |= getattr(base, "__annotations__", {})
    return sorted(names)


document = json.load(urllib.request.urlopen(url.removesuffix("/v1") + "/openapi.json"))
print("| Route | Accepted | Ignored | Refused by name |\n|---|---|---|---|")
for route, (of, body) in ROUTES.items():
    schema = document["paths"][f"/v1/{route}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    told = {name: field.get("x-nanogpt", "accepted") for name, field in schema["properties"].items()}
    names = sorted({*fields(of), "stream"} if route != "embeddings" else fields(of))
    missing = [name for name in names if name not in told]
    if missing:
        raise SystemExit(f"{route}: /openapi.json does not declare {', '.join(missing)}")
    status, answer = post(route, body)
    if status != 200:
        raise SystemExit(f"{route}: {answer}")
    for name in names:
        if told[name] == "ignored":
            status, answer = post(route, body | {name: "1"})
            if status != 200:
                raise SystemExit(f"{route}: {name} is not ignored: {answer}")
        if told[name] == "refused":
            status, answer = post(route, body | {name: {"strange": 1}})
            if status != 400 or answer["error"]["param"] != name or len(answer["error"]["message"]) < 20:
                raise SystemExit(f"{route}: {name} is not refused by name: {answer}")
    cells = [", ".join(f"`{name}`" for name in names if told[name] == what) for what in ("accepted", "ignored", "refused")]
    print(f"| `/v1/{route}` | " + " | ".join(cells) + " |")
