import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Launch } from "../../src/engine/device.ts";
import { f32, kernel } from "../../src/kernel.ts";
import { gelu, matmul } from "../../src/ops/mod.ts";
import { Profile } from "../../src/engine/profile.ts";
import { devices } from "../testing.ts";

Deno.test("profile: shares and rates are those computed by hand", () => {
  const declare = (name: string, flops?: () => number) =>
    kernel({ name, reads: { x: f32("n") }, writes: { y: f32("n") }, flops, reference() {} });
  const launchOf = (kernel: ReturnType<typeof declare>, length: number) =>
    ({ kernel, sizes: { n: length }, storages: { x: { length }, y: { length } } }) as unknown as Launch;
  const profile = new Profile(), product = declare("product", () => 6e6), move = declare("move");
  profile.add(launchOf(move, 1000), 0.5); // a launch reads and writes 8,000 bytes
  profile.add(launchOf(product, 10), 3);
  profile.add(launchOf(move, 1000), 0.5);
  assertEquals(profile.total, { calls: 3, ms: 4 });
  assertEquals(profile.table().split("\n"), [
    "Times by the host's clock",
    "kernel   calls   ms   share  µs a call      rate",
    "product      1  3.0  75.0 %     3000.0  2.0 GF/s", // 6e6 in 3 ms
    "move         2  1.0  25.0 %      500.0  0.0 GB/s", // 16,000 bytes in 1 ms
    "all          3  4.0             1333.3",
  ]);
});

for (const { name, device } of await devices()) {
  Deno.test(`profile: every launch counts, eager and replayed (${name})`, async () => {
    const x = device.tensor(new Float32Array(64 * 64).fill(1), [64, 64]), profile = device.profile = new Profile();
    const program = device.capture(() => gelu(matmul(x, x)));
    for (let i = 0; i < 4; i++) program.replay();
    matmul(x, x);
    await program.result.data();
    device.profile = undefined;
    matmul(x, x);
    await x.data();
    assertEquals(profile.total.calls, 11);
    assert(profile.total.ms > 0);
    assertMatch(profile.table(), /matmul_nn +6 .*GF\/s/);
    assertMatch(profile.table(), /gelu_erf_forward +5 .*GB\/s/);
    program.dispose();
  });
}
