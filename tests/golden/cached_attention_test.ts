/**
 * Attention of tokens to a cache with several slots, against PyTorch. It has no gradient, so it is not among the ops'
 * cases.
 */
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
    /** The cache after the new keys and values were written, in f32. */
    const written = () => {
      const { shape: [slots, heads, S, , width], values: cache } = get("cache"), after = cache.slice();
      const [qkv, slot, position] = ["qkv", "slot", "position"].map((key) => get(key).values);
      for (let n = 0; n < slot.length; n++) {
        for (let h = 0; h < heads && slot[n] >= 0 && slot[n] < slots; h++) {
          const [key, value] = [1, 2].map((part) => ((n * 3 + part) * heads + h) * width);
          const place = ((slot[n] * heads + h) * S + position[n]) * 2 * width;
          after.set(qkv.subarray(key, key + width), place);
          after.set(qkv.subarray(value, value + width), place + width);
        }
      }
      return after;
    };
  }
}

for (const { name: on, device } of all) {
  for (const dtype of ["f32", "bf16"] as const) {
    Deno.test(`attention_copy: copies the first positions of one slot to another, ${dtype} (${on})`, async () => {
      for (const [slots, S, heads, width] of [[3, 4, 1, 1], [4, 9, 3, 5], [3, 130, 2, 32]]) { // including an odd width
        const cache = device.tensor(new Float32Array(slots * S * 2 * heads * width), [slots, heads, S, 2, width], {
          dtype,
        });
        const row = 2 * width, before = Float32Array.from({ length: cache.size }, (_, i) => i % 251 - 100);
        const [from, to, count] = [[2, 0, -1], [1, slots, 0], [S - 1, 1, 1]].map((n) =>
          device.tensor(Int32Array.from(n))
        );
        cache.set(before);
        launch(attentionCopy, { from, to, count, cache });
        const expected = before.slice(), at = (slot: number, head: number) => (slot * heads + head) * S * row;
        for (let h = 0; h < heads; h++) expected.copyWithin(at(1, h), at(2, h), at(2, h) + (S - 1) * row);
        assertClose(await cache.data(), expected, { atol: 0, rtol: 0 }, `[${cache.shape}]`);
        for (const tensor of [cache, from, to, count]) tensor.dispose();
      }
    });
  }
}
