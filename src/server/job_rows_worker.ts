/** The worker of job_rows.ts, which converts the rows. */
import type * as threads from "node:worker_threads";
import { readRows } from "../data/rows.ts";
import { DataError } from "../errors.ts";
import { createFile, isObject, type OutputFile, writeAll } from "../files/files.ts";
import { builtin, system } from "../files/system.ts";
import type { Method } from "./job_plan.ts";
import { BATCH, type FromRows, type RowsFound, type RowsTask } from "./job_rows.ts";

type Columns = Readonly<Record<string, unknown>>;
interface Turn {
  readonly role: string;
  readonly content: string;
  readonly [more: string]: unknown;
}

/** Returns the text of a row. @throws {DataError} if the row has none */
function textOf({ text }: Columns): string {
  if (typeof text === "string") return text;
  throw new DataError('expected "text", because a new model is trained on texts');
}

/** Converts a row. The result has one row for each answer to learn. */
function convert(columns: Columns, method: Method): Columns[] {
  if (method === "supervised") return supervised(columns);
  if (method === "dpo") return [preference(columns)];
  const { messages, prompt } = columns;
  if (messages !== undefined) {
    const turns = turnsOf(messages, "messages");
    if (turns.at(-1)?.role === "assistant") {
      throw new DataError("messages: the last message is the assistant's; expected a user's, which the model answers");
    }
    return [{ prompt: turns, item: columns }];
  }
  if (prompt === undefined) throw new DataError('expected "messages", or "prompt"');
  return [{ prompt: wordsOf(prompt, "prompt"), item: columns }];
}

function supervised(columns: Columns): Columns[] {
  const { messages, prompt, completion, text, tools } = columns, more = Array.isArray(tools) ? { tools } : {};
  if (messages !== undefined) {
    const turns = turnsOf(messages, "messages");
    const learned = turns.flatMap(({ role, weight }, i) => {
      if (weight !== undefined && weight !== 0 && weight !== 1) {
        throw new DataError(`messages[${i}].weight: expected 0 or 1`);
      }
      return role === "assistant" && weight !== 0 ? [i] : [];
    });
    if (learned.length === 0) {
      throw new DataError("messages: no message is the assistant's with weight 1, so there is nothing to learn");
    }
    if (learned[0] === 0) {
      throw new DataError("messages: the first message is the assistant's; expected a user's or the system's");
    }
    const plain = turns.map(({ weight: _, ...turn }) => turn);
    return learned.map((i) => ({ prompt: plain.slice(0, i), completion: [plain[i]], ...more }));
  }
  if (prompt !== undefined && completion !== undefined) {
    return [{ prompt: wordsOf(prompt, "prompt"), completion: wordsOf(completion, "completion"), ...more }];
  }
  if (text === undefined) throw new DataError('expected "messages", "prompt" and "completion", or "text"');
  return [{ text: wordsOf(text, "text") }];
}

function preference(columns: Columns): Columns {
  const { input, preferred_output, non_preferred_output, prompt, chosen, rejected } = columns;
  if (isObject(input)) {
    const answers = { chosen: preferred_output, rejected: non_preferred_output };
    const [good, bad] = Object.entries(answers).map(([name, value]) => {
      const field = name === "chosen" ? "preferred_output" : "non_preferred_output";
      return turnsOf(value, field);
    });
    return { prompt: turnsOf(input.messages, "input.messages"), chosen: good, rejected: bad };
  }
  if (chosen === undefined || rejected === undefined) {
    throw new DataError(
      'expected "input" with "messages", "preferred_output" and "non_preferred_output"; or "prompt", "chosen", "rejected"',
    );
  }
  return {
    ...prompt !== undefined && { prompt: wordsOf(prompt, "prompt") },
    ...{ chosen: wordsOf(chosen, "chosen"), rejected: wordsOf(rejected, "rejected") },
  };
}

const wordsOf = (value: unknown, at: string) => typeof value === "string" ? value : turnsOf(value, at);

/**
 * Returns the messages in a value. Their `content` may be a list of text parts.
 *
 * @throws {DataError} if the value is not a list of messages
 */
function turnsOf(value: unknown, at: string): Turn[] {
  if (!Array.isArray(value) || value.length === 0) throw new DataError(`${at}: expected a list of messages`);
  return value.map((turn, i) => {
    if (!isObject(turn) || typeof turn.role !== "string") throw new DataError(`${at}[${i}].role: expected a text`);
    const { content } = turn, parts = Array.isArray(content) ? content : undefined;
    const text = parts?.map((part) =>
      isObject(part) && part.type === "text" && typeof part.text === "string" ? part.text : undefined
    );
    if (typeof content !== "string" && (!text || text.includes(undefined))) {
      throw new DataError(`${at}[${i}].content: expected a text, or a list of {"type": "text", "text": …}`);
    }
    return { ...turn, role: turn.role, content: text ? text.join("") : content as string };
  });
}

/** Collects lines into larger writes. */
class Lines {
  #parts: string[] = [];
  #length = 0;
  bytes = 0;
  constructor(readonly file: OutputFile, readonly most = Infinity) {}
  async add(line: string): Promise<void> {
    this.#parts.push(line);
    if ((this.#length += line.length) > 2 ** 20) await this.flush();
  }
  async flush(): Promise<void> {
    const bytes = new TextEncoder().encode(this.#parts.join(""));
    if ((this.bytes += bytes.length) > this.most) {
      throw new DataError(
        `the job's copy of the file, with a row for each answer, has more than the ${this.most} bytes left of your storage`,
      );
    }
    await writeAll(this.file, bytes);
    this.#parts = [];
    this.#length = 0;
  }
}

async function prepare(
  { path, method, output, most }: RowsTask,
  tell: (message: FromRows) => void,
): Promise<RowsFound> {
  if (path.endsWith(".txt")) return await copyText(path, output, tell);
  const file = await createFile(output),
    places = await createFile(`${output}.where`),
    lines = new Lines(file, most),
    from = new Lines(places);
  let rows = 0, chats = false;
  try {
    for await (const { where, columns } of readRows(path)) {
      const place = where.slice(path.length).replace(/^, /, "");
      try {
        if (method === "text") await lines.add(textOf(columns) + "\n");
        else {for (const row of convert(columns, method)) {
            chats ||= typeof (row.prompt ?? row.text ?? row.chosen) !== "string";
            await lines.add(JSON.stringify(row) + "\n");
            await from.add(place + "\n");
          }}
      } catch (error) {
        throw error instanceof DataError ? new DataError(`${place}: ${error.message}`) : error;
      }
      if (++rows % BATCH === 0) tell({ read: rows });
    }
    await lines.flush();
    await from.flush();
    await file.sync();
  } finally {
    file.close();
    places.close();
  }
  return { rows, chats, bytes: lines.bytes };
}

/** Copies a plain text after checking that it is valid UTF-8. */
async function copyText(path: string, output: string, tell: (message: FromRows) => void): Promise<RowsFound> {
  const decoder = new TextDecoder("utf-8", { fatal: true }),
    input = await system.open(path),
    buffer = new Uint8Array(2 ** 20);
  let bytes = 0;
  try {
    for (let read; (read = await input.read(buffer)) !== null; tell({ read: 0 })) {
      decoder.decode(buffer.subarray(0, read), { stream: true });
      bytes += read;
    }
    decoder.decode();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new DataError(`after byte ${bytes}: not UTF-8 text; save the file as UTF-8`);
  } finally {
    input.close();
  }
  await system.copyFile(path, output);
  return { rows: 0, chats: false, bytes };
}

const { parentPort, workerData } = builtin<typeof threads>("node:worker_threads"), { path } = workerData as RowsTask;
const tell = (message: FromRows) => parentPort!.postMessage(message);
tell({ read: 0 }); // the worker has started
prepare(workerData, tell).then((done) => tell({ done }), (error) => {
  if (!(error instanceof DataError)) return tell({ broken: String(error) });
  // Readers name the file by its path, which clients must not see.
  tell({ failed: error.message.replaceAll(`${path}, `, "").replaceAll(path, "the file") });
});
