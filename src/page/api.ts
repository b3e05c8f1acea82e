/** Requests to the server that the page came from. */
import { store, stored } from "./dom.ts";

/** An error that the server returned, or a failed connection. */
export class Failure extends Error {
  readonly status: number;
  readonly code: string | undefined;
  /** @param status 0 if there was no answer */
  constructor(message: string, status: number, code?: string | null) {
    super(message);
    this.status = status;
    this.code = code ?? undefined;
  }
}

/** A request that was sent. */
export interface Asked {
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface Options {
  readonly method?: "GET" | "POST" | "DELETE";
  readonly body?: Readonly<Record<string, unknown>> | FormData;
  readonly signal?: AbortSignal;
  /** Whether the page's part *Server* shows code for this request. */
  readonly shown?: boolean;
}

/** Name of the API key in `sessionStorage`, where it is stored until the tab is closed. */
const KEY = "nanogpt key";
export const key = {
  get value(): string {
    return stored<string>(sessionStorage, KEY) ?? "";
  },
  set value(key: string) {
    store(sessionStorage, KEY, key);
  },
};

const listeners: ((asked: Asked) => void)[] = [];
/** Adds a listener, which is called with each request that has the option `shown`. */
export const onAsked = (listener: (asked: Asked) => void): void => void listeners.push(listener);

/**
 * Sends a request.
 *
 * @throws {Failure} if the answer is an error or there is no answer
 * @throws {DOMException} if the signal aborted
 */
export async function ask(path: string, options: Options = {}): Promise<Response> {
  const { body, signal, shown = false, method = body ? "POST" : "GET" } = options, form = body instanceof FormData;
  if (shown && body && !form) { for (const listener of listeners) listener({ path, body }); }
  const headers: Record<string, string> = {
    ...key.value && { authorization: `Bearer ${key.value}` },
    ...body && !form && { "content-type": "application/json" },
  };
  const sent = body && { body: form ? body : JSON.stringify(body) };
  let response: Response;
  try {
    response = await fetch(path, { method, headers, cache: "no-store", ...sent, ...signal && { signal } });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({})) as { error?: { message?: string; code?: string | null } };
  throw new Failure(error?.message ?? `The server answered ${response.status}`, response.status, error?.code);
}

export const json = async <T>(path: string, options: Options = {}): Promise<T> =>
  await (await ask(path, options)).json();

/**
 * Yields the events of a stream.
 *
 * @throws {Failure} also for an error in the stream
 */
export async function* events<T>(path: string, options: Options): AsyncGenerator<T> {
  const response = await ask(path, options);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop()!;
      for (const block of blocks) {
        if (!block.startsWith("data: ")) continue; // a comment, which only keeps the connection open
        if (block === "data: [DONE]") return;
        const found = JSON.parse(block.slice(6));
        if (found.error) throw new Failure(found.error.message, response.status, found.error.code);
        yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A model in the list of `/v1/models`. */
export interface Model {
  readonly id: string;
  readonly context_length: number;
  readonly vocab_size: number;
  readonly chat: boolean;
  readonly loaded: boolean;
}

/** The message of an error; undefined if the user stopped the request. */
export const reasonOf = (error: unknown): string | undefined =>
  error instanceof DOMException && error.name === "AbortError"
    ? undefined
    : error instanceof Error
    ? error.message
    : String(error);
