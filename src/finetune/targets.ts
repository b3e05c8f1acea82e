/** Selects layers of a model by names, patterns and block numbers, like PEFT's LoraConfig. */
import { ConfigError, nearest } from "../errors.ts";
import { Linear } from "../nn/linear.ts";
import { isContainer, Module } from "../nn/module.ts";

/** A linear layer's path, and the field that holds the layer or the wrappers around it. */
export interface Place {
  /** The layer's path in the model without adapters, such as `transformer.h.0.attn.c_attn`. */
  readonly path: string;
  /** The object with the field. */
  readonly holder: Record<string, unknown>;
  readonly key: string;
}

/** The fields below `value` that hold linear layers or wrappers around them, in the order of the fields. */
export function* linearPlaces(value: unknown, path = ""): Generator<Place> {
  for (const [key, item] of Object.entries(value as Record<string, unknown>)) {
    const here = path ? `${path}.${key}` : key;
    if (item instanceof Linear || isWrapped(item)) {
      yield { path: here, holder: value as Record<string, unknown>, key };
    } else if (item instanceof Module || isContainer(item)) yield* linearPlaces(item, here);
  }
}

const isWrapped = (value: unknown): boolean => value instanceof Module && "base_layer" in value;

/** All modules below `value` with their paths, parents first. */
export function* namedModules(value: unknown, path = ""): Generator<[path: string, module: Module]> {
  if (value instanceof Module && path) yield [path, value];
  if (!isWrapped(value) && (value instanceof Module || isContainer(value))) {
    for (const [key, item] of Object.entries(value)) yield* namedModules(item, path ? `${path}.${key}` : key);
  }
}

/** Whether `name` is the path or ends it, after a dot. */
export const endsIn = (path: string, name: string): boolean => path === name || path.endsWith(`.${name}`);

/**
 * Limits of patterns. A pattern may come from an untrusted file, and matching can take exponential time: a repeated
 * group can double the time with every character of a path, and each further repetition multiplies it. Patterns for
 * names of layers need no repeated group and few repetitions.
 */
const REPEATED_GROUP = /\)\??[*+{]/, REPETITION = /[*+{]/g, MOST_REPETITIONS = 6, LONGEST = 256;

/**
 * Compiles a regular expression that must match a whole path. It may use the syntax that Python and JavaScript share.
 *
 * @throws {ConfigError} when the pattern is not valid, too long, or might take forever
 */
function patternOf(source: string, option: string): RegExp {
  const refuse = (why: string) => new ConfigError(`${option}: ${JSON.stringify(source)} ${why}`);
  if (source.length > LONGEST) throw refuse(`has more than ${LONGEST} characters`);
  if (REPEATED_GROUP.test(source)) throw refuse("repeats a group, which may take forever");
  if ((source.match(REPETITION)?.length ?? 0) > MOST_REPETITIONS) {
    throw refuse(`has more than ${MOST_REPETITIONS} repetitions, which may take forever`);
  }
  try {
    return new RegExp(`^(?:${source})$`);
  } catch (error) {
    throw refuse(`is not a regular expression: ${(error as Error).message}`);
  }
}

/** The number of the first entry of `patterns` that matches the path or its end; `otherwise` if none matches. */
export function byPattern(
  patterns: Readonly<Record<string, number>>,
  path: string,
  { option, otherwise }: { option: string; otherwise: number },
): number {
  const found = Object.keys(patterns).find((key) => patternOf(`(?:.*\\.)?(?:${key})`, option).test(path));
  return found === undefined ? otherwise : patterns[found];
}

/** Options of {@linkcode targetsOf}. */
export interface Targets {
  readonly targets: string | RegExp | readonly string[];
  readonly layers?: readonly number[];
  readonly modulesToSave?: readonly string[];
}

/**
 * Selects linear layers. As in PEFT, a name is a path or its end, a pattern must match the whole path, and `all-linear`
 * excludes the head. Layers inside a module of `modulesToSave` are excluded.
 *
 * @throws {ConfigError} when a name or the pattern matches no layer, or a block number does not exist
 */
export function targetsOf(model: Module, { targets, layers, modulesToSave = [] }: Targets): Place[] {
  const within = (path: string) => modulesToSave.some((name) => `.${path}.`.includes(`.${name}.`));
  const places = [...linearPlaces(model)], free = places.filter(({ path }) => !within(path));
  const known = [...new Set(places.map(({ path }) => path.replace(/^.*\.\d+\./, "").replace(/^.*\./, "")))];
  const matching = (test: (path: string) => boolean, what: string, meant = ""): Place[] => {
    const found = free.filter(({ path }) => test(path));
    if (found.length > 0) return found;
    throw new ConfigError(`LoRA: ${what} matches no linear layer of the model, which has ${known.join(", ")}${meant}`);
  };
  let found: Set<Place>;
  if (targets === "all-linear") found = new Set(matching((path) => path !== "lm_head", targets));
  else if (typeof targets === "string" || targets instanceof RegExp) {
    const pattern = patternOf(typeof targets === "string" ? targets : targets.source, "targets");
    const shown = JSON.stringify(pattern.source.slice(4, -2)), layers = new Set(places.map(({ path }) => path));
    found = new Set(matching((path) => pattern.test(path), `the pattern ${shown}`));
    const other = [...namedModules(model)].find(([path]) => pattern.test(path) && !layers.has(path));
    if (other) { // PEFT would not read the adapter
      throw new ConfigError(`LoRA: the pattern ${shown} matches ${other[0]}, which is not a linear layer`);
    }
  } else {
    if (targets.length === 0) throw new ConfigError(`LoRA: no targets; the model has ${known.join(", ")}`);
    found = new Set(targets.flatMap((name) => {
      const meant = nearest(name, known);
      return matching((path) => endsIn(path, name), JSON.stringify(name), meant && `; did you mean ${meant}?`);
    }));
  }
  if (!layers) return free.filter((place) => found.has(place));
  if (!Array.isArray(targets)) {
    throw new ConfigError("LoRA: layers can only be used with a list of names as targets, not with a pattern");
  }
  const layerOf = ({ path }: Place) => Number(path.match(/^.*?\.[^.]*\.(\d+)\./)?.[1] ?? -1);
  const all = new Set(places.map(layerOf)), missing = layers.find((layer) => layer < 0 || !all.has(layer));
  if (missing !== undefined) {
    throw new ConfigError(`LoRA: there is no layer ${missing}; the model's are 0 to ${Math.max(...all)}`);
  }
  const kept = free.filter((place) => found.has(place) && layers.includes(layerOf(place)));
  if (kept.length > 0) return kept;
  throw new ConfigError(`LoRA: no layer of ${targets.join(", ")} is within layers ${layers.join(", ")}`);
}
