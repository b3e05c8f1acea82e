/** Runs kernels/choose on rows, each of which is described by an object. */
import { BY_NOISE, BY_STREAM, needsTables, recordOf, tablesOf } from "../../kernels/choose/record.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";
import type { Device } from "../../src/engine/device.ts";
import { choose } from "../../kernels/choose/kernel.ts";
import { launch } from "../../src/engine/launch.ts";

/** A row: its logits and sampling options, and how it draws. */
export interface Row extends SamplingOptions {
  readonly logits: ArrayLike<number>;
  /** The tokens so far, of which the first `prompt` are the prompt. */
  readonly tokens?: readonly number[];
  readonly prompt?: number;
  /** Noise of each token. Default: 1 for every token. */
  readonly noise?: ArrayLike<number>;
  readonly seed?: number;
  readonly position?: number;
  readonly given?: number;
  readonly likely?: number;
}

/** Runs the kernel. Returns the id chosen in each row, and each row's pairs of `likely`. */
export async function chosen(device: Device, rows: readonly Row[]) {
  const R = rows.length, V = rows[0].logits.length, K = Math.max(...rows.map(({ likely = -1 }) => likely + 1));
  const stack = (of: (row: Row, r: number) => ArrayLike<number>) => {
    const width = of(rows[0], 0).length, all = new Float64Array(R * width);
    rows.forEach((row, r) => all.set(of(row, r), r * width));
    return all;
  };
  using scope = device.scope();
  const state = stack((
    { given, seed, position = 0 },
    r,
  ) => [seed ?? 0, position, given ?? (seed === undefined ? BY_NOISE : BY_STREAM), r]);
  const tabled = rows.filter(needsTables);
  const number = new Map(tabled.map((row, i) => [row, i]));
  const tables = tabled.flatMap((row) => [...tablesOf(row, { tokens: row.tokens ?? [], prompt: row.prompt ?? 0 }, V)]);
  const likely = K > 0 ? device.empty([R, K, 2]) : undefined;
  const { ids } = launch(choose, {
    logits: device.tensor(stack(({ logits }) => logits), [R, V]),
    noise: device.tensor(stack(({ noise }) => noise ?? Array(V).fill(1)), [R, V]),
    records: device.tensor(stack((row) => recordOf(row, number.get(row), row.likely)), [
      R,
      recordOf({}).length,
    ]),
    state: device.tensor(state, [R, 4], { dtype: "i32" }),
    tables: tabled.length > 0 ? device.tensor(tables, [tabled.length, 2, V]) : undefined,
    likely,
  });
  const kept = [ids, likely].map((tensor) => tensor && scope.keep(tensor));
  scope[Symbol.dispose]();
  const [choice, pairs] = await Promise.all(kept.map((tensor) => tensor?.data().finally(() => tensor.dispose())));
  return {
    ids: [...choice!],
    likely: rows.map(({ likely = -1 }, r) =>
      Array.from({ length: likely + 1 }, (_, k) => [...pairs!.subarray(2 * (r * K + k), 2 * (r * K + k) + 2)])
    ),
  };
}
