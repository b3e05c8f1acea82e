/**
 * Measures TensorFlow.js with its WebAssembly backend, for bench/peers.ts: products, and a training step of nanoGPT's
 * model.
 */
import { answer, repeated, type Run } from "./answer.ts";
import type { Request } from "./measures.ts";
import { type Library, load } from "./npm_peer.ts";

const { library: tf, version } = await load(Deno.args[0], "@tensorflow/tfjs");
await load(Deno.args[0], "@tensorflow/tfjs-backend-wasm");
await tf.setBackend("wasm");

type Value = Library;

function product({ form, M, K, N }: Request & { kind: "product" }): Run {
  const a = tf.randomUniform(form === "TN" ? [K, M] : [M, K], -0.5, 0.5);
  const b = tf.randomUniform(form === "NT" ? [N, K] : [K, N], -0.5, 0.5);
  return repeated(() => tf.matMul(a, b, form === "TN", form === "NT").dispose()); // the backend computes immediately
}

function training(
  { batchSize: B, blockSize: T, vocabSize: V, nLayer, nHead, nEmbd: C, dropout }: Request & { kind: "training" },
) {
  if (dropout) throw new Error("TensorFlow.js is measured without dropout only");
  const weights: Value[] = [];
  const variable = (initial: Value) => {
    const made = tf.variable(initial);
    weights.push(made);
    return made;
  };
  const normal = (...shape: number[]) => variable(tf.randomNormal(shape, 0, 0.02));
  const wte = normal(V, C), wpe = normal(T, C), lnf = variable(tf.ones([C]));
  const blocks = Array.from({ length: nLayer }, () => ({
    ...{ ln1: variable(tf.ones([C])), qkv: normal(C, 3 * C), proj: normal(C, C) },
    ...{ ln2: variable(tf.ones([C])), fc: normal(C, 4 * C), out: normal(4 * C, C) },
  }));
  const later = tf.tidy(() => tf.linalg.bandPart(tf.ones([T, T]), -1, 0).sub(1).mul(1e9)); // causal mask

  const norm = (x: Value, weight: Value) => {
    const centred = x.sub(x.mean(-1, true));
    return centred.mul(centred.square().mean(-1, true).add(1e-5).rsqrt()).mul(weight);
  };
  // (B, T, in) → (B, T, out), as a product of two matrices: the gradient of a broadcast product is slow.
  const linear = (x: Value, weight: Value, transposed = false) =>
    tf.matMul(x.reshape([B * T, -1]), weight, false, transposed).reshape([B, T, -1]);
  const gelu = (x: Value) => x.mul(x.mul(Math.SQRT1_2).erf().add(1).mul(0.5));
  const attention = (x: Value, { qkv, proj }: { qkv: Value; proj: Value }) => {
    const parts = tf.split(linear(x, qkv), 3, -1);
    const [q, k, v] = parts.map((part: Value) => part.reshape([B, T, nHead, C / nHead]).transpose([0, 2, 1, 3]));
    const scores = tf.matMul(q, k, false, true).mul(1 / Math.sqrt(C / nHead)).add(later); // (B, nh, T, T)
    return linear(tf.matMul(tf.softmax(scores), v).transpose([0, 2, 1, 3]).reshape([B, T, C]), proj);
  };
  // The backend lacks the gradient of gather, so embeddings are products with one-hot matrices.
  const oneHot = (ids: Value) => tf.oneHot(ids, V).toFloat(); // (B·T, V)
  const loss = (ids: Value, targets: Value) => {
    let x = tf.matMul(oneHot(ids), wte).reshape([B, T, C]).add(wpe);
    for (const block of blocks) {
      x = x.add(attention(norm(x, block.ln1), block));
      x = x.add(linear(gelu(linear(norm(x, block.ln2), block.fc)), block.out));
    }
    return tf.losses.softmaxCrossEntropy(oneHot(targets), linear(norm(x, lnf), wte, true).reshape([B * T, V]));
  };

  const optimizer = tf.train.adam(1e-3, 0.9, 0.99); // TensorFlow.js has no AdamW
  const ids = () => tf.tensor1d(Int32Array.from({ length: B * T }, () => Math.random() * V), "int32");
  return repeated(() =>
    tf.tidy(() => {
      const x = ids(), y = ids(), { value, grads } = tf.variableGrads(() => loss(x, y), weights);
      const norms = Object.values(grads).map((gradient) => (gradient as Value).square().sum());
      const scale = tf.minimum(1, tf.addN(norms).sqrt().add(1e-6).reciprocal());
      for (const name of Object.keys(grads)) grads[name] = grads[name].mul(scale);
      optimizer.applyGradients(grads);
      const [read] = value.dataSync();
      if (!Number.isFinite(read)) throw new Error(`the loss is ${read}`);
    })
  );
}

await answer<Request>(`TensorFlow.js ${version}, WebAssembly, one thread, Deno ${Deno.version.deno}`, (request) => {
  return request.kind === "product" ? product(request) : training(request as Request & { kind: "training" });
});
