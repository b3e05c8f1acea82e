/** Attention of tokens of several slots to a cache, against PyTorch. It has no gradient, so it is not among the ops' cases. */
import { attentionCopy } from "../../kernels/attention/cached.ts";
import { launch } from "../../src/engine/launch.ts";
import { cachedAttention } from "../../src/ops/cached_attention.ts";
import { assertClose, assertShape, devices } from "../testing.ts";
import { readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";

const all = await devices(), fixture = readFixture<{ name: string }>("cached_attention");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const { name: on, device } of all) {
    const get = (key: string) => fixture.get(`${number}.${key}`);
    const tensor = (key: string, options = {}) => device.tensor(get(key).values, get(key).shape, options);
    for (const dtype of ["f32", "bf16"] as const) {
      Deno.test(`cachedAttention, ${name}, ${dtype} (${on})`, async () => {
        const i32 = { dtype: "i32" }, cache = tensor("cache", { dtype });
        const places = { slot: tensor("slot", i32), position: tensor("position", i32) };
        const y = cachedAttention(tensor("qkv"), cache, places), out = get(dtype === "f32" ? "out" : "out_bf16");
        assertShape(y, out.shape, name);
        assertClose(await y.data(), out.values, limitOf(device, "attention"), name);
        const after = dtype === "f32" ? written() : get("cache_bf16").values;
        assertClose(await cache.data(), after, { atol: 0, rtol: 0 }, `${name}: the cache`);
      });
    }
    /** The cache in f32, with the new keys and values, which lie side by side in both. */
    const written = () => {
      const { shape: [slots, S], values: cache } = get("cache"), C = get("out").shape[1], after = cache.slice();
      const [slot, position] = [get("slot").values, get("position").values];
      for (let n = 0; n < slot.length; n++) {
        const pair = get("qkv").values.subarray((3 * n + 1) * C, (3 * n + 3) * C);
        if (slot[n] >= 0 && slot[n] < slots) after.set(pair, (slot[n] * S + position[n]) * 2 * C);
      }
      return after;
    };
  }
}

for (const { name: on, device } of all) {
  for (const dtype of ["f32", "bf16"] as const) {
    Deno.test(`attention_copy: a slot gets the first places of another, ${dtype} (${on})`, async () => {
      for (const [slots, S, heads, width] of [[3, 4, 1, 1], [4, 9, 3, 5], [3, 130, 2, 32]]) { // a place has 2, 30, 128 numbers
        const cache = device.tensor(new Float32Array(slots * S * 2 * heads * width), [slots, S, 2, heads, width], {
          dtype,
        });
        const row = 2 * heads * width, before = Float32Array.from({ length: cache.size }, (_, i) => i % 251 - 100);
        const [from, to, count] = [[2, 0, -1], [1, slots, 0], [S - 1, 1, 1]].map((n) =>
          device.tensor(Int32Array.from(n))
        );
        cache.set(before);
        launch(attentionCopy, { from, to, count, cache });
        const expected = before.slice().copyWithin(S * row, 2 * S * row, (3 * S - 1) * row);
        assertClose(await cache.data(), expected, { atol: 0, rtol: 0 }, `[${cache.shape}]`);
        for (const tensor of [cache, from, to, count]) tensor.dispose();
      }
    });
  }
}
