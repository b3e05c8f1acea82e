/**
 * A server process for tests: it resumes the jobs of the folder in the first argument, and prints a line for each event.
 * When there are as many events as the second argument says, it kills itself.
 */
import { withJobs } from "./jobs_client.ts";

await withJobs(Deno.args[0], async ({ jobs: { store } }) => {
  const told = new Set<string>();
  while (store.jobsIn("validating_files", "queued", "running").length > 0) {
    for (const { id } of store.jobsIn("queued", "running", "succeeded", "failed")) {
      for (const event of store.events(id, { limit: 1000 })[0]) {
        if (!told.has(event.id)) console.log(event.message);
        told.add(event.id);
      }
    }
    if (told.size >= Number(Deno.args[1])) Deno.kill(Deno.pid, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
});
