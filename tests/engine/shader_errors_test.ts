/** Errors of shaders that do not compile: they name the file, the line, and what is wrong. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { shaderError } from "../../src/device/shader_errors.ts";
import { DeviceError } from "../../src/errors.ts";
import { type AnyPass, f32, kernel } from "../../src/kernel.ts";
import { launch } from "../../src/engine/launch.ts";
import { openDevice } from "../testing.ts";

/** A shader that runs `body`, in its line 6, for each element. */
const source = (body: string) =>
  `struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn duplicate(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.n) { ${body} }
}
`;
const duplicate = (body: string, file?: string) =>
  kernel({
    name: "clone",
    reads: { x: f32("n") },
    writes: { y: f32("n") },
    reference() {},
    gpu: { source: source(body), entry: "duplicate", file, workgroups: ({ n }) => Math.ceil(n / 64) },
  });

/** A shader module whose compilation returned the given messages. */
const module = (...messages: Partial<GPUCompilationMessage>[]) =>
  ({ getCompilationInfo: () => Promise.resolve({ messages }) }) as unknown as GPUShaderModule;
const pass = duplicate("y[id.x] = z[id.x];").gpu as unknown as AnyPass;

Deno.test("shader errors: the first error of Dawn's messages is used unchanged", async () => {
  const found = module(
    { type: "warning", message: "code is unreachable", lineNum: 2, linePos: 1 },
    { type: "error", message: "unresolved value 'z'", lineNum: 6, linePos: 36 },
    { type: "error", message: "another", lineNum: 7, linePos: 1 },
  );
  const line = "if (id.x < params.n) { y[id.x] = z[id.x]; }";
  assertEquals(await shaderError(found, pass), `duplicate.wgsl.ts:6:36: unresolved value 'z'\n  ${line}`);
  assertEquals(await shaderError(module({ type: "warning", message: "", lineNum: 1 }), pass), undefined);
});

Deno.test("shader errors: from wgpu's drawings the message extracts what is wrong and why", async () => {
  const wrong = "\nShader validation error: Entry point duplicate at Compute is invalid\n";
  const place = "  ┌─ duplicate:6:26\n  │\n6 │   y[id.x] = vec2f(1.0);\n  │   ^^^^^^^ naga::ir::Expression [3]\n  │\n";
  const why = "  = The type of [3] doesn't match the type stored in [1]\n\n";
  const found = module({ type: "error", message: wrong + place + why, lineNum: 6, linePos: 26 });
  assertMatch(
    await shaderError(found, { ...pass, file: "copy.wgsl.ts" }) ?? "",
    /^copy\.wgsl\.ts:6:26: Entry point duplicate at Compute is invalid: The type of \[3\] doesn't match [^\n]*\[1\]\n {2}if /,
  );
  const parsing = "\nShader 'duplicate' parsing error: expected `;`, found \"}\"\n  ┌─ wgsl:6:26\n";
  assertMatch(
    await shaderError(module({ type: "error", message: parsing, lineNum: 6, linePos: 26 }), pass) ?? "",
    /^duplicate\.wgsl\.ts:6:26: expected `;`, found "}"\n/,
  );
  assertEquals(
    await shaderError(
      module({ type: "error", message: wrong + " = Workgroup size is out of range", lineNum: 0 }),
      pass,
    ),
    "duplicate.wgsl.ts: Entry point duplicate at Compute is invalid: Workgroup size is out of range",
  );
});

const names = (Deno.env.get("NANOGPT_TEST_DEVICES") ?? "").split(",").filter((name) => name.startsWith("webgpu"));
for (const name of names) {
  Deno.test(`shader errors: a DeviceError names the file and the line, not the errors that follow from it (${name})`, async () => {
    for (
      const [body, column] of [["y[id.x] = z[id.x];", 36], ["y[id.x] = vec2f(1.0);", "(26|34)"], ["y[id.x] = 1.0", 40]]
    ) {
      const device = await openDevice(name);
      const { y } = launch(duplicate(`${body}`, "copy.wgsl.ts"), { x: device.tensor([1, 2], [2]) });
      const error = await assertRejects(() => y.data(), DeviceError);
      assertMatch(
        error.message,
        new RegExp(`^webgpu: copy\\.wgsl\\.ts:6:${column}: [^\n]+\n  if \\(id\\.x < params\\.n\\)`),
      );
      device.close();
    }
    const device = await openDevice(name);
    const { y } = launch(duplicate("y[id.x] = x[id.x];"), { x: device.tensor([1, 2], [2]) });
    assertEquals([...await y.data()], [1, 2]);
    device.close();
  });
}
