/**
 * A worker that encodes ranges of a text file. The first message that it receives is an `EncodeSetup`; every later
 * message is an `EncodeRange`.
 */
import { type Encode, encoder, type EncodeRange, type EncodeReply, type EncodeSetup } from "./encode_pool.ts";

/** The global scope of a worker, which the library's types do not declare. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<EncodeSetup | EncodeRange>) => void) | null;
  postMessage(reply: EncodeReply, transfer: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;
let encode: Promise<Encode>;

scope.onmessage = async ({ data }) => {
  if ("path" in data) {
    encode = encoder(data);
    return;
  }
  try {
    const ids = (await encode)(data);
    scope.postMessage({ ids }, [ids.buffer]);
  } catch (error) {
    scope.postMessage({ error: (error as Error).message }, []);
  }
};
