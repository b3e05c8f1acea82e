/**
 * GGUF files written by PyPI's gguf and llama.cpp's converter: their contents, the logits of their models, and Q8_0's
 * bytes.
 */
import { assertEquals } from "@std/assert";
import { GgufModel } from "../../src/checkpoint/gguf.ts";
import { f32ToQ8, q8ToF32 } from "../../src/engine/q8_0.ts";
import { GgufFile } from "../../src/files/gguf.ts";
import { GPT } from "../../src/gpt.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { limitOf } from "./tolerances.ts";

interface Expected {
  /** Whole numbers above 2^53 are strings. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly shapes: Readonly<Record<string, number[]>>;
  readonly types: Readonly<Record<string, string>>;
  /** A checksum of each tensor in f32. */
  readonly sha256: Readonly<Record<string, string>>;
  readonly ids: number[];
  /** The logits after the last id. */
  readonly logits: number[];
}
const folder = new URL("gguf/", import.meta.url);
const { q8_0, files }: { q8_0: Record<"values" | "bytes", string>; files: Record<string, Expected> } = JSON.parse(
  await Deno.readTextFile(new URL("expected.json", folder)),
);
const pathOf = (name: string) => new URL(name, folder).pathname;

for (const [name, expected] of Object.entries(files)) {
  Deno.test(`${name}: metadata and tensors equal what PyPI's gguf reads`, async () => {
    using file = await GgufFile.open(pathOf(name));
    const plain = (value: unknown) => typeof value === "bigint" ? `${value}` : value;
    const metadata = [...file.metadata].map(([key, { value }]) => [key, plain(value)]);
    assertEquals(Object.fromEntries(metadata), expected.metadata);
    const tensors = [...file.tensors];
    assertEquals(Object.fromEntries(tensors.map(([name, { shape }]) => [name, shape])), expected.shapes);
    assertEquals(Object.fromEntries(tensors.map(([name, { dtype }]) => [name, dtype])), expected.types);
    for (const name of file.tensors.keys()) {
      const sum = await crypto.subtle.digest("SHA-256", await file.readTensor(name));
      assertEquals(new Uint8Array(sum).toHex(), expected.sha256[name], name);
    }
  });
}

async function checkLogits({ device }: TestDevice, name: string) {
  using file = await GgufModel.open(pathOf(name));
  const { ids, logits } = files[name], model = new GPT(file.config, { device, initialize: false }).eval();
  try {
    await file.load(model);
    const evaluate = () => {
      using _ = device.scope();
      return model.forward(device.tensor(ids, [1, ids.length], { dtype: "i32" })).logits.data();
    };
    assertClose(await evaluate(), logits, limitOf(device, "logits"), name);
  } finally {
    model.dispose();
  }
}
for (const on of await devices()) {
  for (const name of Object.keys(files)) Deno.test(`${name}: logits (${on.name})`, () => checkLogits(on, name));
}

Deno.test("Q8_0: the bytes of gguf.quants, and their values d · q", () => {
  const values = new Float32Array(Uint8Array.fromHex(q8_0.values).buffer), bytes = Uint8Array.fromHex(q8_0.bytes);
  assertEquals(f32ToQ8(values).toHex(), q8_0.bytes);
  const out = new Float32Array(values.length), view = new DataView(bytes.buffer);
  q8ToF32(bytes, out);
  const expected = out.map((_, i) => view.getFloat16((i >> 5) * 34, true) * view.getInt8((i >> 5) * 34 + 2 + (i & 31)));
  assertEquals(out, expected);
  const part = new Float32Array(50);
  q8ToF32(bytes.slice(34), part, 9); // starts within a block
  assertEquals(part, expected.slice(41, 91));
});
