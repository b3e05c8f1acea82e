/**
 * A job's worker that reports a full disk the first time: if a file `full` exists beside the job's folder, which it
 * removes.
 */
import { exists } from "../../src/files/files.ts";
import type { FromJob, ToJob } from "../../src/server/job_messages.ts";

const port = globalThis as unknown as {
  onmessage: ((event: { readonly data: ToJob }) => void) | null;
  postMessage(message: FromJob): void;
};
port.onmessage = async (event) => {
  const { data } = event, full = data.kind === "start" ? `${data.order.folder}/../full` : "";
  if (full && await exists(full)) {
    await Deno.remove(full);
    const message = "Cannot save the checkpoint of iteration 5 in out: No space left on device";
    return port.postMessage({ kind: "failed", error: { name: "CheckpointError", message } });
  }
  await import("../../src/cli/job_worker.ts"); // it replaces `onmessage`
  port.onmessage!(event);
};
