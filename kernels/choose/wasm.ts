import type { F32Local, I32Local, Lanes, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { exp, log } from "../../src/wasm/math.ts";
import { philox } from "../../src/wasm/philox.ts";
import { BANNED, BY_STREAM, DAMAGED, type RecordField, recordFields } from "./record.ts";

/** Entries whose shares are summed as one chunk when a row draws from its own stream. */
export const CHUNK = 256;

type Names = "logits" | "noise" | "records" | "state" | "ids" | "R" | "V" | "drawn" | "T" | "L" | "K" | "workspace";
type ChooseLocals =
  & Record<Names | "begin" | "end", I32Local>
  & { readonly tables: I32Local | undefined; readonly likely: I32Local | undefined };

/** The row that is being computed. */
interface Row {
  /**
   * The function, the vocabulary's size, and the address of x, which e = exp(x − max x) overwrites (see kernel.ts). In
   * this file e is called a token's share.
   */
  readonly f: WasmFunction;
  readonly V: I32Local;
  readonly x: I32Local;
}

/**
 * Chooses the tokens of rows `begin` to `end`. Rules that few rows use are functions of their own, because V8 compiles
 * a function when it is first called. These functions store their result in the element after x.
 */
export function choose(f: WasmFunction, { begin, end, V, workspace, tables, likely, ...of }: ChooseLocals): void {
  const { f32, i32 } = f, chunks = i32.divUp(V, CHUNK), rules = defineRules(f);
  const penalized = tables && definePenalized(f), likelihoods = likely && defineLikelihoods(f, rules);
  f.loop(begin, end, 1, (r) => {
    const record = i32.at(of.records, i32.mul(r, recordFields.length)), state = i32.at(of.state, i32.mul(r, 4));
    const field = (name: RecordField) => f32.load(record, recordFields.indexOf(name));
    const logits = i32.at(of.logits, i32.mul(r, V)), x = i32.at(workspace, i32.mul(r, i32.add(V, chunks)));
    const row = { f, V, x },
      result = i32.at(x, V),
      [seed, position, way, noiseRow] = [0, 1, 2, 3].map((i) => i32.load(state, i));
    const temperature = field("temperature"), greedy = f32.eq(temperature, 0), id = i32.copy(way);
    const table = i32.truncate(field("table")), hasTables = i32.lt(table, of.T); // unsigned, −1 is above every T
    const own = tables && i32.at(tables, i32.mul(i32.select(hasTables, table, i32.constant(0)), i32.mul(V, 2)));

    f.when(i32.ltSigned(way, 0), () => {
      const divisor = f32.select(greedy, 1, temperature), greatest = f32.constant(0);
      const plain = () => {
        const all = f.splat(divisor), scaled = (i: I32Local, v: Lanes) => v.div(v.load(logits, i), all);
        f.assign(greatest, soundMaximum(f, V, (i, v) => stored(v, x, i, scaled(i, v))));
      };
      if (own) {
        f.when(hasTables, () => {
          f.call(penalized!, x, V, logits, own, record, divisor);
          f.assign(greatest, f32.load(result));
        }, plain);
      } else plain();
      const atPlaceOf = (value: F32Local) => {
        f.call(rules.place, x, V, value);
        f.set(id, f.get(i32.load(result)));
      };
      f.when(isFinite(f, greatest), () => {
        f.when(greedy, () => atPlaceOf(greatest), () => {
          sharesOf(row, greatest, field, rules);
          f.when(i32.eq(way, BY_STREAM), () => {
            f.call(rules.byStream, x, V, chunks, seed, position);
            f.set(id, f.get(i32.load(result)));
          }, () => {
            const noise = i32.at(of.noise, i32.mul(i32.rem(noiseRow, of.drawn), V));
            const times = (i: I32Local, v: Lanes) => v.div(v.load(x, i), v.load(noise, i));
            atPlaceOf(f.reduce("max", 1, V, (i, v) => [stored(v, x, i, times(i, v))])[0]);
          });
        });
      }, () => {
        f.call(rules.failure, x, V, logits);
        f.set(id, f.get(i32.load(result)));
      });
    }, () => f.set(id, f.get(i32.min(way, i32.sub(V, 1)))));

    i32.store(of.ids, r, id);
    i32.store(state, 1, i32.add(position, 1));
    i32.store(state, 3, i32.add(noiseRow, of.R));
    if (own) {
      f.when(i32.and(hasTables, i32.ltSigned(-1, id)), () => {
        const seen = i32.add(V, id);
        f32.store(own, seen, f32.add(f32.loadAt(own, seen), 1));
      });
    }
    if (likely && likelihoods) {
      const into = i32.at(likely, i32.mul(i32.mul(i32.rem(noiseRow, of.L), of.K), 2)),
        count = i32.min(i32.truncate(field("likely")), of.K);
      f.when(i32.ne(count, 0), () => f.call(likelihoods, x, V, logits, id, into, count));
    }
  });
}

/** Whether a number is finite: only a finite number minus itself is 0. */
const isFinite = (f: WasmFunction, value: F32Local) => f.f32.eq(f.f32.sub(value, value), 0);

/** Stores a value and returns it, for a reduction. */
function stored(v: Lanes, x: I32Local, i: I32Local, value: Vector): Vector {
  v.store(x, i, value);
  return value;
}

/** The greatest of V values, or NaN if any of them is NaN. */
function soundMaximum(f: WasmFunction, V: I32Local, value: (i: I32Local, v: Lanes) => Vector): F32Local {
  const zero = f.splat(0), one = f.splat(1);
  const [greatest, hasNaN] = f.reduce("max", 2, V, (i, v) => {
    const at = value(i, v);
    return [at, v.select(v.eq(at, at), zero, one)];
  });
  return f.f32.select(f.f32.eq(hasNaN, 0), greatest, NaN);
}

/** The first index at which x has the value, or V − 1 if no element has it (possible if noise is NaN). */
function place({ f, V, x }: Row, value: F32Local): I32Local {
  const wanted = f.splat(value), out = f.splat(-Infinity);
  const [negative] = f.reduce("max", 1, V, (i, v) => {
    const number = v.fromI32(v.addI32(v.iota(), f.splatI32(i)));
    return [v.select(v.eq(v.load(x, i), wanted), v.neg(number), out)];
  });
  return f.i32.truncate(f.f32.min(f.f32.neg(negative), f.f32.fromInt(f.i32.sub(V, 1))));
}

/**
 * Defines a function that computes x = (logits + bias, less penalties) / temperature, using the row's tables, and
 * returns the greatest x.
 */
const definePenalized = (f: WasmFunction) =>
  f.define("penalized", ["i32", "i32", "i32", "i32", "i32", "f32"], (f, x, V, logits, bias, record, temperature) => {
    const seen = f.i32.at(bias, V), zero = f.splat(0), one = f.splat(1), divisor = f.splat(temperature);
    const penalties = ["repetitionPenalty", "presencePenalty", "frequencyPenalty"] as const;
    const [repetition, presence, frequency] = penalties.map((name) =>
      f.splat(f.f32.load(record, recordFields.indexOf(name)))
    );
    const scores = (i: I32Local, v: Lanes) => {
      const count = v.load(seen, i), score = v.add(v.load(logits, i), v.load(bias, i));
      const repeated = v.select(v.lt(score, zero), v.mul(score, repetition), v.div(score, repetition));
      const once = v.sub(v.select(v.gt(count, zero), repeated, score), v.and(v.ge(count, one), presence));
      return v.div(v.sub(once, v.mul(v.fromI32(v.truncate(count)), frequency)), divisor);
    };
    f.f32.store(x, V, soundMaximum(f, V, (i, v) => stored(v, x, i, scores(i, v))));
  });

const defineRules = (f: WasmFunction) => ({
  place: f.define("place", ["i32", "i32", "f32"], (f, x, V, value) => {
    f.i32.store(x, V, place({ f, V, x }, value));
  }),
  kthGreatest: f.define("kth_greatest", ["i32", "i32", "i32"], (f, x, V, k) => {
    f.f32.store(x, V, kthGreatest({ f, V, x }, k));
  }),
  keepTopP: f.define("keep_top_p", ["i32", "i32", "f32"], (f, x, V, out) => keepTopP({ f, V, x }, out)),
  keepMinP: f.define("keep_min_p", ["i32", "i32", "f32"], (f, x, V, minP) => {
    const share = f.splat(minP);
    f.forEach(0, V, (i, v) => v.store(x, i, v.andNot(v.load(x, i), v.lt(v.load(x, i), share))));
  }),
  byStream: f.define("by_stream", ["i32", "i32", "i32", "i32", "i32"], (f, x, V, chunks, seed, position) => {
    f.i32.store(x, V, byStream({ f, V, x }, chunks, seed, position));
  }),
  failure: f.define("failure", ["i32", "i32", "i32"], (f, x, V, logits) => {
    const sound = isFinite(f, soundMaximum(f, V, (i, v) => v.load(logits, i)));
    f.i32.store(x, V, f.i32.select(sound, BANNED, DAMAGED));
  }),
});

/** Replaces x by exp(x − greatest), or by 0 if top-k, top-p or min-p exclude the token. */
function sharesOf(
  row: Row,
  greatest: F32Local,
  field: (name: RecordField) => F32Local,
  rules: ReturnType<typeof defineRules>,
): void {
  const { f, V, x } = row, { f32, i32 } = f, zero = f.splat(0), topP = field("topP"), minP = field("minP");
  const topK = i32.truncate(field("topK")), least = f32.constant(-Infinity);
  // The comparison is unsigned, so it is false for topK = 0, which excludes nothing.
  f.when(i32.lt(i32.sub(topK, 1), i32.sub(V, 1)), () => {
    f.call(rules.kthGreatest, x, V, topK);
    f.assign(least, f32.loadAt(x, V));
  });
  const from = f.splat(least), top = f.splat(greatest);
  f.forEach(0, V, (i, v) => {
    const score = v.load(x, i);
    v.store(x, i, v.select(v.lt(score, from), zero, exp(f, v, v.sub(score, top))));
  });
  f.when(f32.gt(1, topP), () => f.call(rules.keepTopP, x, V, f32.sub(1, topP)));
  f.when(f32.gt(minP, 0), () => f.call(rules.keepMinP, x, V, minP));
}

/**
 * The greatest t such that at least k elements are t or more. Read as integers, with the bits of negative floats
 * inverted, floats keep their order. So t is found bit by bit, with 32 passes that count, and without sorting. If the
 * k-th greatest is −∞, the result is NaN; no score compares as less than NaN, so nothing is excluded.
 */
function kthGreatest({ f, V, x }: Row, k: I32Local): F32Local {
  const key = f.i32.constant(0), enough = f.f32.fromSize(k), one = f.splat(1), sign = 0x80000000;
  const toFloat = (key: I32Local) => {
    const positive = f.i32.shr(key, 31);
    return f.i32.asF32(f.i32.xor(key, f.i32.select(positive, f.i32.constant(sign), f.i32.constant(-1))));
  };
  f.loop(0, 32, 1, (bit) => {
    const higher = f.i32.or(key, f.i32.shr(f.i32.constant(sign), bit)), threshold = f.splat(toFloat(higher));
    const count = f.sum(V, (i, v) => v.and(v.ge(v.load(x, i), threshold), one));
    f.assign(key, f.i32.select(f.f32.ge(count, enough), higher, key));
  });
  return toFloat(key);
}

/**
 * Sets the smallest shares to 0, as many as add up to at most `out` times the sum of all shares. First it sets all
 * shares below a threshold t to 0. t is the greatest number for which their sum is small enough, and is found bit by
 * bit as in {@linkcode kthGreatest}. Then it sets shares equal to t to 0, in order, until no more of them fit, or only
 * one of them is left.
 *
 * The search needs a sum that never decreases with t, which is true because the order of the additions is fixed. Shares
 * are from 0 to 1, and one of them is 1.
 */
function keepTopP({ f, V, x }: Row, out: F32Local): void {
  const { f32, i32 } = f, key = i32.constant(0), below = f32.constant(0), zero = f.splat(0), one = f.splat(1);
  const most = f32.mul(out, f.sum(V, (i, v) => v.load(x, i)));
  f.loop(0, 30, 1, (bit) => { // starting with the highest bit of 1.0, the greatest share
    const higher = i32.or(key, i32.shr(0x20000000, bit)), threshold = f.splat(i32.asF32(higher));
    const sum = f.sum(V, (i, v) => v.and(v.lt(v.load(x, i), threshold), v.load(x, i)));
    f.when(i32.and(f32.ge(1, i32.asF32(higher)), f32.ge(most, sum)), () => {
      f.assign(key, higher);
      f.assign(below, sum);
    });
  });
  const t = i32.asF32(key), threshold = f.splat(t), isBelow = (v: Lanes, i: I32Local) => v.lt(v.load(x, i), threshold);
  const equal = f.sum(V, (i, v) => v.and(v.eq(v.load(x, i), threshold), one));
  const left = f32.min(f32.floor(f32.div(f32.sub(most, below), t)), f32.sub(equal, 1));
  f.forEach(0, V, (i, v) => v.store(x, i, v.select(isBelow(v, i), zero, v.load(x, i))));
  f.when(f32.gt(left, 0), () => {
    f.loop(0, V, 1, (i) => {
      f.when(i32.and(f32.gt(left, 0), f32.eq(f32.loadAt(x, i), t)), () => {
        f32.store(x, i, 0);
        f.assign(left, f32.sub(left, 1));
      });
    });
  });
}

/**
 * The first index at which the running sum of shares is above u times their sum. Searches for the chunk first, and then
 * in the chunk.
 */
function byStream({ f, V, x }: Row, chunks: I32Local, seed: I32Local, position: I32Local): I32Local {
  const { f32, i32 } = f, sums = i32.at(x, V), total = f32.constant(0);
  f.loop(0, chunks, 1, (c) => {
    const from = i32.mul(c, CHUNK), part = i32.at(x, from), n = i32.min(i32.sub(V, from), CHUNK);
    f.assign(total, f32.add(total, f.sum(n, (i, v) => v.load(part, i))));
    f32.store(sums, c, total);
  });
  const uniform = f32.through(0, (v) => v.fromI32(v.shr(philox(f, -1, 0, seed)(v, f.splatI32(position))[0], 8)));
  // The target is below the total: the greatest u is 1 − 2⁻²⁴, so the product rounds down. So some running sum is above
  // it.
  const target = f32.mul(f32.mul(uniform, 2 ** -24), total);
  const atMost = f.splat(target), one = f.splat(1);
  const chunk = i32.truncate(f.sum(chunks, (i, v) => v.and(v.le(v.load(sums, i), atMost), one)));
  const from = i32.mul(chunk, CHUNK), sum = f32.constant(0), last = i32.copy(from), id = i32.constant(-1);
  f.when(i32.ne(chunk, 0), () => f.assign(sum, f32.loadAt(sums, i32.sub(chunk, 1))));
  f.loop(from, i32.min(i32.add(from, CHUNK), V), 1, (i) => {
    const share = f32.loadAt(x, i);
    f.assign(sum, f32.add(sum, share));
    f.assign(last, i32.select(f32.gt(share, 0), i, last));
    f.assign(id, i32.select(i32.and(i32.ltSigned(id, 0), f32.gt(sum, target)), i, id));
  });
  return i32.select(i32.ltSigned(id, 0), last, id);
}

/** Defines the function that writes `count` pairs of `likely` (see kernel.ts). It overwrites x. */
const defineLikelihoods = (f: WasmFunction, rules: ReturnType<typeof defineRules>) =>
  f.define("likelihoods", ["i32", "i32", "i32", "i32", "i32", "i32"], (f, x, V, logits, id, into, count) => {
    const { f32, i32 } = f, row = { f, V, x };
    f.forEach(0, V, (i, v) => v.store(x, i, v.load(logits, i)));
    const greatest = maximum(row), top = f.splat(greatest);
    const sum = f.sum(V, (i, v) => exp(f, v, v.sub(v.load(x, i), top))),
      lost = f32.through(sum, (v, x) => log(f, v, x));
    // DAMAGED and BANNED are negative. As unsigned numbers they are large, so they become V − 1.
    const at = i32.copy(i32.min(id, i32.sub(V, 1)));
    f.loop(0, count, 1, (k) => {
      f.when(k, () => {
        f.call(rules.place, x, V, maximum(row));
        f.set(at, f.get(i32.loadAt(x, V)));
      });
      f32.store(into, i32.mul(k, 2), f32.fromInt(at));
      f32.store(into, i32.add(i32.mul(k, 2), 1), f32.sub(f32.sub(f32.loadAt(logits, at), greatest), lost));
      f.when(k, () => f32.store(x, at, NaN)); // excludes the token from the next search
    });
  });

const maximum = ({ f, V, x }: Row) => f.reduce("max", 1, V, (i, v) => [v.load(x, i)])[0];
