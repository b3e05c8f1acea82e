/**
 * A job's worker that pretends that the disk is full, once: if a file `full` exists beside the job's folder, it removes
 * this file and fails. Otherwise it is the usual worker.
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
  await import("../../src/cli/job_worker.ts"); // replaces `port.onmessage` by the usual worker's handler
  port.onmessage!(event);
};
