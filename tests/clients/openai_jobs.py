"""OpenAI's Python client with files and fine-tuning jobs; it checks every answer against its types.

Usage: openai_jobs.py URL KEY CHAT_MODEL
"""
import json
import sys
import time

import openai

url, key, chat_model = sys.argv[1:4]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, _strict_response_validation=True)
other = openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def check(right, what):
    if not right:
        raise SystemExit(f"wrong: {what}")


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise SystemExit("not refused")


# The model could not give this answer before fine-tuning.
rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes sir"}]}] * 40
text = "".join(json.dumps(row) + "\n" for row in rows).encode()
file = client.files.create(file=("chats.jsonl", text), purpose="fine-tune")
check(file.bytes == len(text) and file.filename == "chats.jsonl", "files.create")
check(client.files.retrieve(file.id) == file, "files.retrieve")
check(client.files.content(file.id).read() == text, "files.content")
check(file.id in [one.id for one in client.files.list(purpose="fine-tune", limit=1)], "files.list")
refused(openai.AuthenticationError, lambda: other.files.list())

bad = client.files.create(file=("bad.jsonl", b'{"messages": 3}\n'), purpose="fine-tune")
hyperparameters = {"n_epochs": 30, "batch_size": 4, "learning_rate_multiplier": 100, "lora_rank": 0}
method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
job = client.fine_tuning.jobs.create(model=chat_model, training_file=file.id, suffix="polite", seed=3, method=method)
failed = client.fine_tuning.jobs.create(model=chat_model, training_file=bad.id)
deadline = time.time() + 200
while job.status not in ("succeeded", "failed") and time.time() < deadline:
    time.sleep(0.3)
    job = client.fine_tuning.jobs.retrieve(job.id)
check(job.status == "succeeded", job)
events = list(client.fine_tuning.jobs.list_events(job.id, limit=7))  # pages of seven
check(len({event.id for event in events}) == len(events) > 30, "events, each once")
losses = [event.data["train_loss"] for event in events if event.type == "metrics"]
check(losses[0] < 0.5 * losses[-1], f"the newest first, and it learns: {losses[-1]} to {losses[0]}")
checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
check(len(checkpoints) > 0 and checkpoints[0].fine_tuning_job_id == job.id, "checkpoints")
check(all(client.files.content(result).read() for result in job.result_files), "result files")

tuned = client.models.retrieve(job.fine_tuned_model)
answer = client.chat.completions.create(model=tuned.id, messages=[{"role": "user", "content": "hi"}], temperature=0)
check(answer.choices[0].message.content == "yes sir", answer.choices[0].message.content)
refused(openai.NotFoundError, lambda: other.models.retrieve(tuned.id))

while failed.status not in ("succeeded", "failed") and time.time() < deadline:
    time.sleep(0.3)
    failed = client.fine_tuning.jobs.retrieve(failed.id)
check(failed.status == "failed" and failed.error.param == "training_file" and "line 1" in failed.error.message, failed)
long = client.fine_tuning.jobs.create(model=chat_model, training_file=file.id,
                                      hyperparameters={"n_epochs": 50, "batch_size": 1})
check(client.fine_tuning.jobs.cancel(long.id).status == "cancelled", "cancel")
check({job.id, failed.id, long.id} <= {one.id for one in client.fine_tuning.jobs.list(limit=2)}, "jobs.list")
check(client.models.delete(tuned.id).deleted and client.files.delete(file.id).deleted, "delete")
refused(openai.NotFoundError, lambda: client.models.retrieve(tuned.id))
refused(openai.NotFoundError, lambda: client.files.retrieve(file.id))
print("checks passed")
