export default /* wgsl */ `// The next token, drawn by softmax(logits / temperature) with noise from the exponential distribution:
//
//   x = logit / temperature,  x < the topK-th greatest: out,  id = argmax exp((logit − greatest) / temperature) / noise
//
// which is how torch.multinomial draws. Temperature 0 takes the greatest logit; of equals the first wins. A row with NaN, or
// whose maximum is infinite, gives −1.
//
// Each row has a temperature and a topK of its own, and row first + its number, modulo their number, of the noise.
// A workgroup owns a row, of which an invocation takes every 256th entry. Floats are compared by keys, unsigned
// integers in the same order: so the workgroup finds a maximum with an integer atomic, whose result does not depend on
// the order, and the topK-th greatest bit by bit, counting 32 times.

struct Params { B: u32, V: u32, drawn: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;      // (B, V)
@group(0) @binding(2) var<storage, read> noise: array<f32>;       // (drawn, V), above 0
@group(0) @binding(3) var<storage, read> noise_first: array<u32>; // (1)
@group(0) @binding(4) var<storage, read> temperature: array<f32>; // (B)
@group(0) @binding(5) var<storage, read> top_k: array<i32>;       // (B)
@group(0) @binding(6) var<storage, read_write> ids: array<i32>;   // (B)

const LANES = 256u;
const SIGN = 0x80000000u;
const INFINITY_KEY = 0xff800000u;
const MINUS_INFINITY_KEY = 0x007fffffu;
const NAN_KEY = 0xffffffffu;
var<workgroup> greatest: atomic<u32>; // all of these begin as 0
var<workgroup> counts: array<atomic<u32>, 32>;
var<workgroup> best: atomic<u32>;
var<workgroup> from_end: atomic<u32>;

/// Keeps the order of floats: negative ones turned round, 0 and −0 equal, NaN below everything.
fn key_of(x: f32) -> u32 {
  let bits = select(bitcast<u32>(x), 0u, x == 0.0);
  let key = select(bits | SIGN, ~bits, bits >= SIGN);
  return select(key, 0u, key > INFINITY_KEY);
}

fn float_of(key: u32) -> f32 { return bitcast<f32>(select(~key, key ^ SIGN, key >= SIGN)); }

@compute @workgroup_size(LANES)
fn sample(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.B) { return; }
  let first = row * params.V;
  let own = (noise_first[0] + row) % params.drawn * params.V;
  let topK = u32(top_k[row]);

  var least = 0u; // the key of the topK-th greatest; 0 leaves nothing out
  if (topK > 0u && topK < params.V) {
    for (var bit = 0u; bit < 32u; bit++) {
      let higher = least | (SIGN >> bit);
      var count = 0u;
      for (var i = lane; i < params.V; i += LANES) { count += select(0u, 1u, key_of(logits[first + i]) >= higher); }
      atomicAdd(&counts[bit], count);
      workgroupBarrier();
      least = select(least, higher, atomicLoad(&counts[bit]) >= topK);
    }
  }

  var key = 0u;
  for (var i = lane; i < params.V; i += LANES) {
    let each = key_of(logits[first + i]);
    key = max(key, select(each, NAN_KEY, each < MINUS_INFINITY_KEY));
  }
  atomicMax(&greatest, key);
  workgroupBarrier();
  let greatest_key = atomicLoad(&greatest);
  let top = float_of(greatest_key);
  // Compared after the division, as on the CPU: it may make equals of the topK-th greatest and those just below.
  let t = select(1.0, temperature[row], temperature[row] > 0.0);
  let least_x = key_of(float_of(least) / t);

  key = 0u;
  var place = 0u;
  for (var i = lane; i < params.V; i += LANES) {
    let logit = logits[first + i];
    var share = key_of(logit);
    if (share < least && key_of(logit / t) < least_x) { continue; }
    if (temperature[row] > 0.0) { share = key_of(exp((logit - top) / t) / noise[own + i]); }
    if (share > key) {
      key = share;
      place = i;
    }
  }
  atomicMax(&best, key);
  workgroupBarrier();
  // Of those that have found as great a share, the first: the farthest from the end.
  if (key == atomicLoad(&best)) { atomicMax(&from_end, params.V - place); }
  workgroupBarrier();
  let damaged = greatest_key >= INFINITY_KEY || greatest_key == MINUS_INFINITY_KEY;
  if (lane == 0u) { ids[row] = select(i32(params.V - atomicLoad(&from_end)), -1, damaged); }
}
`;
