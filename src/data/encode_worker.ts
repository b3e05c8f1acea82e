/** A worker that encodes ranges of a text file: the first message says how, each other one is a range. */
import type { EncodeOptions } from "../tokenizer/tokenizer.ts";
import { tokenizerFromJSON } from "../tokenizer/load.ts";
import { TextFile } from "./text_file.ts";
import type { TokenType } from "./tokens.ts";

/** How a text file is to be encoded. */
export interface EncodeSetup {
  readonly path: string;
  /** A tokenizer's `toJSON`. */
  readonly tokenizer: Record<string, unknown>;
  readonly options: EncodeOptions;
  readonly type: TokenType;
}

/** Bytes of the file. */
export interface EncodeRange {
  readonly begin: number;
  readonly end: number;
}

/** The ids of a range, as bytes of the file to write, or why there are none. */
export type EncodeReply = { readonly ids: Uint8Array<ArrayBuffer> } | { readonly error: string };

/** The global scope of a worker, of which the library's types know nothing. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<EncodeSetup | EncodeRange>) => void) | null;
  postMessage(reply: EncodeReply, transfer: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;
let encode: Promise<(range: EncodeRange) => Uint8Array<ArrayBuffer>>;

async function prepare({ path, tokenizer: json, options, type }: EncodeSetup) {
  const tokenizer = await tokenizerFromJSON(json), file = TextFile.open(path);
  return ({ begin, end }: EncodeRange) => {
    const ids = tokenizer.encode(file.text(begin, end), options);
    return new Uint8Array((type === "uint16" ? Uint16Array.from(ids) : ids).buffer);
  };
}

scope.onmessage = async ({ data }) => {
  if ("path" in data) {
    encode = prepare(data);
    return;
  }
  try {
    const ids = (await encode)(data);
    scope.postMessage({ ids }, [ids.buffer]);
  } catch (error) {
    scope.postMessage({ error: (error as Error).message }, []);
  }
};
