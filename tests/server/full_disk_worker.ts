/** A job's worker that finds the disk full the first time: while there is a file `full` in the job's folder's folder, which it removes. */
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
  await import("../../src/cli/job_worker.ts"); // which listens instead
  port.onmessage!(event);
};
