/** Attention of tokens of several slots to a cache, against PyTorch. It has no gradient, so it is not among the ops' cases. */
import { cachedAttention } from "../../src/ops/cached_attention.ts";
import { assertClose, assertShape, devices } from "../testing.ts";
import { readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";

const all = await devices(), fixture = readFixture<{ name: string }>("cached_attention");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const { name: on, device } of all) {
    Deno.test(`cachedAttention, ${name} (${on})`, async () => {
      const tensor = (key: string) => {
        const { values, shape, dtype } = fixture.get(`${number}.${key}`);
        return device.tensor(values, shape, { dtype: dtype === "i32" ? "i32" : "f32" });
      };
      const cache = tensor("cache"), places = { slot: tensor("slot"), position: tensor("position") };
      const y = cachedAttention(tensor("qkv"), cache, places);
      const out = fixture.get(`${number}.out`);
      assertShape(y, out.shape, name);
      assertClose(await y.data(), out.values, limitOf(device, "attention"), name);
      const [slots, S] = cache.shape, C = out.shape[1], get = (key: string) => fixture.get(`${number}.${key}`).values;
      const after = get("cache").slice(), slot = get("slot"), position = get("position");
      for (let n = 0; n < slot.length; n++) { // keys and values lie side by side in both
        const pair = get("qkv").subarray((3 * n + 1) * C, (3 * n + 3) * C);
        if (slot[n] >= 0 && slot[n] < slots) after.set(pair, (slot[n] * S + position[n]) * 2 * C);
      }
      assertClose(await cache.data(), after, { atol: 0, rtol: 0 }, `${name}: the cache`);
    });
  }
}
