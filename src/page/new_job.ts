/** The form in *Runs* that starts a fine-tuning job. */
import { Failure, json } from "./api.ts";
import { find, make } from "./dom.ts";
import { beginJob, type Job, type Page, upload } from "./run_data.ts";
import { allModels, fail, model } from "./state.ts";

/** Lists the server's files in the form. */
export async function listFiles(): Promise<void> {
  const { data } = await json<Page<{ id: string; filename: string; purpose: string }>>("/v1/files?limit=100");
  const select = find<HTMLSelectElement>("job-file"), now = select.value;
  select.replaceChildren(
    make("option", { value: "" }, "a file from this computer"),
    ...data.filter(({ purpose }) => purpose === "fine-tune").map(({ id, filename }) =>
      make("option", { value: id }, `${filename} (${id.slice(-6)})`)
    ),
  );
  if (data.some(({ id }) => id === now)) select.value = now;
}

/** An example of a grader. */
const GRADER = {
  ...{ type: "string_check", name: "same", operation: "ilike" },
  ...{ input: "{{sample.output_text}}", reference: "{{item.reference}}" },
};

function showMethod(): void {
  const method = find<HTMLSelectElement>("job-method").value, grader = find<HTMLTextAreaElement>("job-grader");
  find("grader-label").hidden = method !== "reinforcement";
  if (!grader.value) grader.value = JSON.stringify(GRADER, null, 2);
  find("job-upload-label").hidden = find<HTMLSelectElement>("job-file").value !== "";
}

async function begin(begun: (job: Job) => Promise<void>): Promise<void> {
  const form = new FormData(find<HTMLFormElement>("new-job")), submit = find<HTMLButtonElement>("job-begin");
  const given = (name: string) => String(form.get(name) ?? "").trim(), method = given("method");
  submit.disabled = true;
  try {
    let training_file = given("file");
    if (!training_file) {
      const file = find<HTMLInputElement>("job-upload").files?.[0];
      if (!file) throw new Failure("Choose a file to train on: a text or JSON lines", 0);
      training_file = await upload(file);
      await listFiles();
    }
    const names = ["n_epochs", "batch_size", "learning_rate_multiplier", "lora_rank"];
    const hyperparameters = Object.fromEntries(names.filter(given).map((name) => [name, Number(given(name))]));
    const grader = method === "reinforcement" ? { grader: parseGrader(given("grader")) } : {};
    const suffix = given("suffix") && { suffix: given("suffix") };
    const job = await beginJob({
      ...{ model: given("model"), training_file, ...suffix },
      method: { type: method, [method]: { ...grader, hyperparameters } },
    });
    find<HTMLInputElement>("job-upload").value = "";
    await begun(job);
  } catch (error) {
    fail(error);
  }
  submit.disabled = false;
}
function parseGrader(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Failure("The grader is not valid JSON", 0);
  }
}

/** Opens the form with a file as its training data. */
export async function offerFile(id: string, method: string): Promise<void> {
  await listFiles();
  find<HTMLSelectElement>("job-file").value = id;
  find<HTMLSelectElement>("job-method").value = method;
  find<HTMLInputElement>("job-model").value = model()?.id ?? "";
  find<HTMLDetailsElement>("new-job-details").open = true;
  showMethod();
  find("job-begin").scrollIntoView({ block: "center" });
  find("job-method").focus();
}

/** Lists the models in the form. */
export function refreshNewJob(): void {
  find("job-models").replaceChildren(...allModels().map(({ id }) => make("option", { value: id })));
  find<HTMLInputElement>("job-model").value ||= allModels()[0]?.id ?? "";
}

/** Adds the form's event handlers. @param begun called with each job that was started */
export function bindNewJob(begun: (job: Job) => Promise<void>): void {
  find("new-job").addEventListener("submit", (event) => {
    event.preventDefault();
    void begin(begun);
  });
  for (const id of ["job-method", "job-file"]) find(id).addEventListener("change", showMethod);
  showMethod();
}
