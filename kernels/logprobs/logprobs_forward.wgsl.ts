export default /* wgsl */ `// The log-probability of each row's target in rows of logits, at a temperature, and
// statistics of the row's distribution p = softmax(scale · logits):
//
//   lse = log Σ exp(scale · logits),  logprob = scale · logits[target] − lse,  entropy = −Σ p log p,
//   mean = Σ logits / V,  hit = 1 if the target's logit is the greatest
//
// If the target is 'ignore', all of these except lse are 0.
//
// A workgroup owns one row: lane l takes its logits l, l + 64, …, and the lanes' results are combined by halves, so
// additions always have the same order. A target that is not a valid class counts as the last class.

struct Params { rows: u32, V: u32, ignore: i32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, V)
@group(0) @binding(2) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(3) var<storage, read_write> logprob: array<f32>; // (rows)
@group(0) @binding(4) var<storage, read_write> lse: array<f32>; // (rows)
@group(0) @binding(5) var<storage, read_write> entropy: array<f32>; // (rows)
@group(0) @binding(6) var<storage, read_write> mean: array<f32>; // (rows)
@group(0) @binding(7) var<storage, read_write> hit: array<f32>; // (rows)

const LANES = 64u;
var<workgroup> partial: array<vec3f, LANES>;
const LOWEST = -3.4028234e38; // the maximum of zero elements

fn greatest_of_all(value: f32, lane: u32) -> f32 {
  partial[lane].x = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane].x = max(partial[lane].x, partial[lane + half].x); }
    workgroupBarrier();
  }
  let greatest = partial[0].x;
  workgroupBarrier(); // all lanes have read this value before the next is written
  return greatest;
}

fn sum_of_all(value: vec3f, lane: u32) -> vec3f {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  return partial[0];
}

@compute @workgroup_size(LANES)
fn logprobs_forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let first = row * params.V;
  var greatest = LOWEST;
  for (var c = lane; c < params.V; c += LANES) { greatest = max(greatest, logits[first + c]); }
  greatest = greatest_of_all(greatest, lane);
  var sums = vec3f(0.0);
  for (var c = lane; c < params.V; c += LANES) {
    let logit = logits[first + c];
    let shifted = params.scale * (logit - greatest);
    let e = exp(shifted);
    sums += vec3f(e, e * shifted, logit);
  }
  sums = sum_of_all(sums, lane);
  if (lane > 0u) { return; }
  let logarithm = log(sums.x);
  let own = logits[first + min(bitcast<u32>(targets[row]), params.V - 1u)];
  let ignored = targets[row] == params.ignore;
  lse[row] = params.scale * greatest + logarithm;
  logprob[row] = select(params.scale * (own - greatest) - logarithm, 0.0, ignored);
  entropy[row] = select(logarithm - sums.y / sums.x, 0.0, ignored);
  mean[row] = select(sums.z / f32(params.V), 0.0, ignored);
  hit[row] = select(0.0, 1.0, own == greatest && !ignored);
}
`;
