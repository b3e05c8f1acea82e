/**
 * Measures jax-js with its WebAssembly backend, for bench/peers.ts: products, and a training step of nanoGPT's model,
 * both compiled by its jit.
 */
import { answer, repeated, type Run } from "./answer.ts";
import type { Request } from "./measures.ts";
import { type Library, load } from "./npm_peer.ts";

const { library: jax, version } = await load(Deno.args[0], "@jax-js/jax");
const { numpy: np, nn, random } = jax;
await jax.init("wasm");
jax.defaultDevice("wasm");

/** An array of jax-js. Reading `.ref` keeps it alive; every other use consumes it. */
type Value = Library;
type Tree = Library;

function product({ form, M, K, N }: Request & { kind: "product" }): Run {
  const matrix = (rows: number, columns: number, seed: number) =>
    random.uniform(random.key(seed), [rows, columns], { minval: -0.5, maxval: 0.5 });
  const a = form === "TN" ? matrix(K, M, 1) : matrix(M, K, 1), b = form === "NT" ? matrix(N, K, 2) : matrix(K, N, 2);
  const subscripts = { NN: "mk,kn->mn", NT: "mk,nk->mn", TN: "km,kn->mn" }[form];
  const multiply = jax.jit((a: Value, b: Value) => np.einsum(subscripts, a, b));
  return repeated(async () => {
    const c = multiply(a.ref, b.ref);
    await c.blockUntilReady();
    c.dispose();
  });
}

function training(
  { batchSize: B, blockSize: T, vocabSize: V, nLayer, nHead, nEmbd: C, dropout }: Request & { kind: "training" },
) {
  if (dropout) throw new Error("jax-js is measured without dropout only");
  let seed = 0;
  const normal = (...shape: number[]) => random.normal(random.key(seed++), shape).mul(0.02);
  const block = () => ({
    ln1: np.ones([C]),
    qkv: normal(C, 3 * C),
    proj: normal(C, C),
    ln2: np.ones([C]),
    fc: normal(C, 4 * C),
    out: normal(4 * C, C),
  });
  let params: Tree = {
    wte: normal(V, C),
    wpe: normal(T, C),
    blocks: Array.from({ length: nLayer }, block),
    lnf: np.ones([C]),
  };
  const zeros = () => jax.tree.map((x: Value) => np.zeros(x.shape), params);
  let m = zeros(), v = zeros();

  const norm = (x: Value, weight: Value) => nn.standardize(x, -1, { epsilon: 1e-5 }).mul(weight);
  const forward = (p: Tree, x: Value) => {
    const attention = ({ qkv, proj }: Tree, x: Value) => {
      const [q, k, v] = np.split(np.matmul(x, qkv), 3, -1).map((part: Value) => part.reshape([B, T, nHead, C / nHead]));
      return np.matmul(nn.dotProductAttention(q, k, v, { isCausal: true }).reshape([B, T, C]), proj);
    };
    const mlp = ({ fc, out }: Tree, x: Value) => np.matmul(nn.gelu(np.matmul(x, fc), { approximate: false }), out);
    x = np.matmul(nn.oneHot(x, V), p.wte.ref).add(p.wpe); // (B, T, C)
    for (const { ln1, ln2, ...weights } of p.blocks) {
      x = x.ref.add(attention(weights, norm(x, ln1)));
      x = x.ref.add(mlp(weights, norm(x, ln2)));
    }
    return np.matmul(norm(x, p.lnf), p.wte.transpose()); // (B, T, V)
  };
  const loss = (p: Tree, x: Value, y: Value) =>
    nn.logSoftmax(forward(p, x), -1).mul(nn.oneHot(y, V)).sum().mul(-1 / (B * T));

  /** A training step with clipping and AdamW. */
  const step = jax.jit((p: Tree, m: Tree, v: Tree, x: Value, y: Value, c1: Value, c2: Value) => {
    const [value, grads] = jax.valueAndGrad(loss)(jax.tree.ref(p), x, y);
    const [leaves, shape] = jax.tree.flatten(grads), list = (tree: Tree) => jax.tree.flatten(tree)[0] as Value[];
    const total = np.sqrt((leaves as Value[]).map((g) => np.square(g.ref).sum()).reduce((a, b) => a.add(b)));
    const scale = np.minimum(1, np.reciprocal(total.add(1e-6)));
    const [ps, ms, vs] = [p, m, v].map(list), next: Value[][] = [[], [], []];
    for (const [i, g] of (leaves as Value[]).entries()) {
      const clipped = g.mul(scale.ref);
      const m = ms[i].mul(0.9).add(clipped.ref.mul(0.1)), v = vs[i].mul(0.99).add(np.square(clipped).mul(0.01));
      const change = m.ref.mul(c1.ref).div(np.sqrt(v.ref.mul(c2.ref)).add(1e-8));
      const decay = ps[i].ndim >= 2 ? 1 - 1e-4 : 1;
      [ps[i].mul(decay).sub(change.mul(1e-3)), m, v].forEach((x, j) => next[j].push(x));
    }
    [scale, c1, c2].forEach((x) => x.dispose());
    return [value, ...next.map((leaves) => jax.tree.unflatten(shape, leaves))];
  });
  const ids = () =>
    np.array(Int32Array.from({ length: B * T }, () => Math.random() * V), { dtype: np.int32 }).reshape([B, T]);
  let t = 0;
  return repeated(async () => {
    t++;
    const corrections = [1 / (1 - 0.9 ** t), 1 / (1 - 0.99 ** t)].map((c) => np.array(c));
    let value: Value;
    [value, params, m, v] = step(params, m, v, ids(), ids(), ...corrections);
    const [read] = await value.data();
    if (!Number.isFinite(read)) throw new Error(`the loss is ${read}`);
  });
}

await answer<Request>(`jax-js ${version}, WebAssembly, Deno ${Deno.version.deno}`, (request) => {
  return request.kind === "product" ? product(request) : training(request as Request & { kind: "training" });
});
