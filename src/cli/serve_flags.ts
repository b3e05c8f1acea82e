/** The flags of `serve`. */
import { ConfigError } from "../errors.ts";
import type { AdapterSpec, ModelSpec } from "../server/messages.ts";
import { type Declaration, taskCommand } from "./command.ts";
import { float, int, text, texts, toggle, type Values } from "./flags.ts";
import { cacheFlag } from "./sample_flags.ts";
import { deviceFlags, modelFlags, PRETRAINED } from "./shared_flags.ts";

const { weights, checkpoint } = modelFlags, { device, threads } = deviceFlags;

export const serveFlags = {
  model: texts(`a model to serve, PATH[,name=NAME]; may be repeated; default: the run in out. PATH is ${PRETRAINED}`),
  adapter: texts("a LoRA adapter to serve as a model, PATH[,name=NAME][,base=NAME]; may be repeated"),
  ...{ weights, checkpoint, device, threads },
  cache: cacheFlag,
  slots: int(
    0,
    "texts that a model generates at once; 0: as many as fit into half of the memory that the weights leave, at most 64",
    {
      min: 0,
      max: 1024,
    },
  ),
  queue: int(512, "texts that may wait for each model; further requests get the HTTP status 429", {
    min: 0,
    max: 100_000,
  }),
  memory: float(
    0,
    "GiB of memory for all models, including the keys and values of all slots; 0: four fifths of the memory free at the start",
    {
      min: 0,
    },
  ),
  host: text(
    "127.0.0.1",
    "the address to listen on; if other machines can reach it, clients need a key (--new_key); in the repository: task serve:lan",
  ),
  port: int(8000, "the port; 0: any free port", { min: 0, max: 65535 }),
  public_host: text(
    "",
    "the host name under which browsers reach the server through a proxy, such as chat.example.org",
  ),
  jobs: text("", "a folder for the files and fine-tuning jobs of clients, who need a key for them; default: no jobs"),
  keys: text(
    "keys.json",
    "the file with the hashes of the clients' keys; default with --jobs: keys.json in that folder",
  ),
  new_key: text("", "make a key with this name, print it, and exit"),
  revoke_key: text("", "revoke the key with this id, and exit"),
  list_keys: toggle("print the ids and names of the keys, and exit"),
};
export type ServeValues = Values<typeof serveFlags>;

export const serveDeclaration: Declaration<typeof serveFlags> = {
  name: "serve",
  flags: serveFlags,
  help: { does: "Serves models over HTTP with OpenAI's API.", usage: "--model=PATH" },
  defaults: ({ jobs }) => jobs ? { keys: `${jobs}/keys.json` } : {},
  check(values) {
    if (values.new_key || values.revoke_key || values.list_keys) return;
    specsOf(values);
    if (!/^[\w.-]+$/.test(values.host)) {
      throw new ConfigError(`--host=${values.host}: expected an address, such as 127.0.0.1`);
    }
    if (Deno.permissions.querySync({ name: "net", host: values.host }).state === "granted") return;
    throw new ConfigError(
      `--host=${values.host}: this process has no permission to listen on the address; the default is 127.0.0.1\nThis listens on all addresses: ${
        taskCommand("serve:lan", [])
      }`,
    );
  },
};

/** Parses `PATH,name=NAME,…`. */
function parsePlace(
  flag: string,
  given: string,
  fields: readonly string[],
): { path: string; [field: string]: string | undefined } {
  const [path, ...rest] = given.split(/,(?=\w+=)/),
    named = rest.map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]);
  const wrong = named.find(([name, value]) => !fields.includes(name) || !/^[\x21-\x7e]+$/.test(value));
  if (!path || wrong) {
    throw new ConfigError(
      `--${flag}=${given}: expected PATH${fields.map((name) => `[,${name}=NAME]`).join("")}, names without spaces`,
    );
  }
  return { path, ...Object.fromEntries(named) };
}

/** The default name of a model: that of its folder or file. */
export function nameOf(path: string): string {
  const parts = path.replace(/[\\/]+$/, "").split(/[\\/]/), last = parts.at(-1)!;
  const name = last === "ckpt.pt" && parts.length > 1 ? parts.at(-2)! : last.replace(/\.(gguf|pt)$/, "");
  return name.replace(/[^\x21-\x7e]+/g, "-") || "model";
}

/**
 * The models and adapters to serve.
 *
 * @throws {ConfigError} if two have the same name, or an adapter's base is not served
 */
export function specsOf(values: ServeValues): (ModelSpec | AdapterSpec)[] {
  const { model, adapter, weights, checkpoint, device, threads, slots, cache } = values;
  const models = (model.length > 0 ? model : ["out"]).map((given): ModelSpec => {
    const { path, name = nameOf(path) } = parsePlace("model", given, ["name"]);
    return { ...{ id: name, path, weights, checkpoint, device, slots, cache }, threads: threads || undefined };
  });
  const adapters = adapter.map((given): AdapterSpec => {
    const { path, name = nameOf(path), base = models[0].id } = parsePlace("adapter", given, ["name", "base"]);
    if (models.some(({ id }) => id === base)) return { id: name, path, base };
    throw new ConfigError(
      `--adapter=${given}: no model is called ${base}; models: ${models.map(({ id }) => id).join(", ")}`,
    );
  });
  const all = [...models, ...adapters], twice = all.find(({ id }, i) => all.findIndex((other) => other.id === id) < i);
  if (twice) throw new ConfigError(`Two models are called ${twice.id}: rename one with --model=PATH,name=NAME`);
  if (adapters.length > 0 && models.length > 1 && adapter.some((given) => !/,base=/.test(given))) {
    throw new ConfigError(
      "--adapter: several models are served; name the model that the adapter is for, as in --adapter=PATH,base=NAME",
    );
  }
  return all;
}
