/**
 * Chooses the next token of each row, one of the vocabulary's V entries, by the sampling rules (rules.ts) in the row's
 * record:
 *
 *     x = (logits + bias, less penalties) / temperature, or −∞ for tokens that top-k, top-p or min-p exclude
 *     e = exp(x − max x)
 *
 * - With noise: id = argmax e / q, where the caller passes q from the exponential distribution. This is how
 *   `torch.multinomial` draws one sample: the least of independent exponential times with rates e is at entry i with
 *   probability eᵢ / Σ e. The row's state holds the number of its row of noise, modulo the number of noise rows.
 * - From the row's own stream: id is the first one at which the running sum of e is above u · Σ e. A token with e = 0
 *   is never chosen. u is the upper 24 bits, times 2⁻²⁴, of a word of Philox with the counter (position, −1, 0, 0) and
 *   the key (seed, 0).
 * - With temperature 0: argmax x, the first if several are equal.
 * - With a token passed in the row's state: that token. Only log-probabilities are then computed.
 *
 * The chosen token is counted as seen in the row's tables. The row's position increases by 1, and its row of noise and
 * of likely by R, so that repeated launches need nothing from the host. `likely` gets log-probabilities from the
 * model's own distribution softmax(logits), of the chosen token and of the most likely tokens. Each row is computed in
 * a fixed order, so its result does not depend, to the bit, on the other rows.
 */
import { f32, type FloatArray, i32, kernel, optional } from "../../src/kernel.ts";
import { philox } from "../../src/random/philox.ts";
import source from "./choose.wgsl.ts";
import { BANNED, BY_STREAM, DAMAGED, recordFields } from "./record.ts";
import { maximum, type SamplingRule, samplingRules } from "./rules.ts";
import * as wasm from "./wasm.ts";

export const choose = kernel({
  name: "choose",
  reads: {
    logits: f32("R", "V"),
    noise: f32("drawn", "V"),
    /** A record per row; its fields are {@linkcode recordFields}. */
    records: f32("R", recordFields.length),
  },
  updates: {
    /**
     * Per row: seed, position, a given token or `BY_NOISE` or `BY_STREAM`, and the number of its row of noise and of
     * likely.
     */
    state: i32("R", 4),
    /** The tables of rows that use a bias or penalties: the bias, and how often each token has been seen. */
    tables: optional(f32("T", 2, "V")),
  },
  writes: {
    ids: i32("R"),
    /**
     * Pairs of an id and its log-probability: first the chosen token, then the most likely tokens. The row of `likely`
     * is the number in the row's state, modulo L.
     */
    likely: optional(f32("L", "K", 2)),
  },
  reference({ logits, noise, records, state, tables, ids, likely }, { R, V, drawn, T, L, K }) {
    for (let r = 0; r < R; r++) {
      const field = (name: typeof recordFields[number]) =>
        records[r * recordFields.length + recordFields.indexOf(name)];
      const raw = Float64Array.from(logits.subarray(r * V, (r + 1) * V)),
        x = raw.slice(),
        table = field("table"),
        n = field("likely");
      const at = 2 * V * table,
        own = tables && table >= 0 && table < T
          ? { bias: tables.subarray(at, at + V), seen: tables.subarray(at + V, at + 2 * V) }
          : undefined;
      // way: a given token, BY_NOISE or BY_STREAM. place: its row of noise and of likely, modulo their number of rows.
      const [seed, position, way, place] = state.subarray(4 * r, 4 * r + 4);
      for (const [name, { apply, neutral }] of Object.entries<SamplingRule>(samplingRules)) {
        // The bias is in the tables, not in the record, and is applied whenever the row has tables.
        const value = name === "logitBias" ? undefined : field(name as typeof recordFields[number]);
        if (name === "temperature" && value === 0) break; // the rules that follow do not change the argmax
        if (value === undefined || value !== neutral) apply(x, value ?? 0, own);
      }
      const greatest = maximum(x), row = (place >>> 0) % drawn * V;
      const shares = x.map((score) => Math.exp(score - greatest));
      if (way >= 0) ids[r] = Math.min(way, V - 1);
      else if (!Number.isFinite(maximum(raw))) ids[r] = DAMAGED;
      else if (!Number.isFinite(greatest)) ids[r] = BANNED;
      else if (field("temperature") === 0) ids[r] = x.indexOf(greatest);
      else if (way === BY_STREAM) {
        ids[r] = byUniform(shares, (philox([position, -1, 0, 0], [seed, 0])[0] >>> 8) * 2 ** -24);
      } else ids[r] = firstGreatest(shares.map((share, i) => share === 0 ? 0 : share / noise[row + i]));
      state[4 * r + 1]++;
      state[4 * r + 3] += R;
      if (own && ids[r] >= 0) own.seen[ids[r]]++;
      if (!likely || n === 0) continue;
      const into = 2 * K * ((place >>> 0) % L);
      likelihoods(raw, ids[r], likely.subarray(into, into + 2 * Math.min(n, K)));
    }
  },
  cpu: {
    tasks: ({ R }) => R,
    work: ({ R, V }) => 20 * R * V,
    workspace: ({ R, V }) => R * (V + Math.ceil(V / wasm.CHUNK)),
    emit: wasm.choose,
  },
  gpu: { source, entry: "choose", workgroups: ({ R }) => R, workspace: ({ R, V }) => R * V },
});

const firstGreatest = (values: Float64Array) => Math.max(values.indexOf(maximum(values)), 0);

function byUniform(shares: Float64Array, u: number): number {
  const target = u * shares.reduce((a, b) => a + b);
  let sum = 0, last = 0;
  for (const [i, share] of shares.entries()) {
    if (share > 0) last = i;
    if ((sum += share) > target) break;
  }
  return last;
}

function likelihoods(logits: Float64Array, id: number, into: FloatArray): void {
  const greatest = maximum(logits), log = Math.log(logits.reduce((sum, x) => sum + Math.exp(x - greatest), 0));
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  [id, ...order].slice(0, into.length / 2).forEach((id, k) => into.set([id, logits[id] - greatest - log], 2 * k));
}
