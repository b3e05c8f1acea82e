import { assertEquals, assertThrows } from "@std/assert";
import { CheckpointError } from "../../src/errors.ts";
import { philox, RandomGenerator } from "../../src/random/mod.ts";
import golden from "../golden/random.json" with { type: "json" };

type Four = [number, number, number, number];

function filled(n: number, fill: (out: Float32Array<ArrayBuffer>) => void): Float32Array<ArrayBuffer> {
  const out = new Float32Array(n);
  fill(out);
  return out;
}

async function sha256(values: Float32Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", values)).toHex();
}

Deno.test("the words of any seed are PyTorch's", () => {
  for (const { seed, words } of golden.words) {
    const generator = new RandomGenerator(BigInt(seed));
    assertEquals(words.map(() => generator.random32()), words, `seed ${seed}`);
  }
  assertEquals(new RandomGenerator(1337).random32(), golden.words[2].words[0]);
  const generator = new RandomGenerator(1337);
  for (let i = 0; i < 1999; i++) generator.random32();
  assertEquals(generator.random32(), golden.word_2000);
});

Deno.test("uniform numbers are PyTorch's", () => {
  for (const { n, from, to, values } of golden.uniform) {
    const generator = new RandomGenerator(11);
    assertEquals([...filled(n, (out) => generator.uniform(out, from, to))], values);
  }
});

Deno.test("normal numbers are PyTorch's, in long and short draws from one generator", () => {
  const generator = new RandomGenerator(12);
  for (const { n, mean, std, values } of golden.normal) {
    assertEquals([...filled(n, (out) => generator.normal(out, mean, std))], values, `${n} normals`);
  }
});

Deno.test("300,003 normal numbers have PyTorch's bits", async () => {
  const generator = new RandomGenerator(13);
  for (const { n, mean, std, sha256: expected } of golden.normal_digests) {
    assertEquals(await sha256(filled(n, (out) => generator.normal(out, mean, std))), expected);
  }
});

Deno.test("random integers and permutations are PyTorch's", () => {
  const generator = new RandomGenerator(14);
  for (const { high, values } of golden.randint) {
    assertEquals(values.map(() => generator.randint(high)), values, `below ${high}`);
  }
  for (const order of golden.randperm) assertEquals([...generator.randperm(order.length)], order);
});

Deno.test("randint refuses bounds that are not valid", () => {
  for (const high of [0, -1, 1.5, NaN, 2 ** 54]) {
    assertThrows(() => new RandomGenerator(0).randint(high), RangeError, String(high));
  }
});

Deno.test("exponential numbers, and tokens chosen with them, are PyTorch's", () => {
  const generator = new RandomGenerator(15);
  assertEquals([...filled(40, (out) => generator.exponential(out))], golden.exponential);
  const p = Float32Array.from(golden.multinomial.p), q = new Float32Array(p.length);
  const chosen = golden.multinomial.chosen.map(() => {
    generator.exponential(q);
    const ratio = p.map((p, i) => p / q[i]);
    return ratio.indexOf(Math.max(...ratio));
  });
  assertEquals(chosen, golden.multinomial.chosen);
});

Deno.test("a generator restored from JSON continues with the same numbers", () => {
  const generator = new RandomGenerator(16);
  generator.normal(new Float32Array(701)); // more than the 624 words of a state
  generator.normal(new Float32Array(3)); // leaves a cached normal
  const state = JSON.parse(JSON.stringify(generator.getState()));
  const draw = (generator: RandomGenerator) => [
    ...filled(2, (out) => generator.normal(out)),
    ...filled(700, (out) => generator.uniform(out)),
    generator.randint(2 ** 40),
  ];
  const expected = draw(generator);
  const resumed = new RandomGenerator(0);
  resumed.setState(state);
  assertEquals(draw(resumed), expected);
  // Without the cached normal the next number differs.
  resumed.setState({ ...state, cachedNormal: null });
  assertEquals(draw(resumed)[0] === expected[0], false);
});

Deno.test("a damaged state is refused, and the generator does not change", () => {
  const generator = new RandomGenerator(17), state = generator.getState();
  const damaged = [
    { ...state, words: state.words.slice(1) },
    { ...state, words: state.words.with(5, 2 ** 32) },
    { ...state, words: state.words.with(5, NaN) },
    { ...state, index: 625 },
    { ...state, index: -1 },
    { ...state, cachedNormal: Infinity },
  ];
  for (const state of damaged) assertThrows(() => generator.setState(state), CheckpointError, "624 words");
  for (const none of [{}, null, undefined]) {
    assertThrows(() => generator.setState(none as typeof state), CheckpointError);
  }
  assertEquals(generator.random32(), new RandomGenerator(17).random32());
});

Deno.test("Philox gives the known answers of its authors' library, Random123", () => {
  const ones = 0xffffffff;
  const known: [Four, [number, number], Four][] = [
    [[0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    [[ones, ones, ones, ones], [ones, ones], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    // π
    [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], [
      0xd16cfe09,
      0x94fdcceb,
      0x5001e420,
      0x24126ea1,
    ]],
  ];
  for (const [counter, key, words] of known) assertEquals(philox(counter, key), words);
});

Deno.test("Philox agrees with its formulas computed with Python integers", () => {
  for (const { counter, key, words } of golden.philox) {
    assertEquals(philox(counter as Four, key as [number, number]), words as Four);
  }
});

Deno.test("skipExponential skips as many words as drawing takes", () => {
  for (const count of [0, 1, 311, 312, 313, 5000]) {
    const [drawn, skipped] = [new RandomGenerator(6), new RandomGenerator(6)];
    for (const generator of [drawn, skipped]) generator.random32();
    drawn.exponential(new Float32Array(count));
    skipped.skipExponential(count);
    assertEquals(skipped.random32(), drawn.random32(), `${count}`);
  }
});
