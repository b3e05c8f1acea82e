export default /* wgsl */ `// Layer normalisation over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450):
//
//   mean = Σ x / C,  rstd = 1 / √(Σ (x − mean)² / C + ε),  y = (x − mean) · rstd · weight + bias
//
// A workgroup owns a row. Each of its 64 invocations adds up every 64th element, and their sums are combined pairwise.
// The row is read three times: the first time from memory, then from the cache.

struct Params { rows: u32, C: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // (rows, C)
@group(0) @binding(2) var<storage, read> weight: array<f32>;      // (C)
@group(0) @binding(3) var<storage, read> bias: array<f32>;        // (C), optional
@group(0) @binding(4) var<storage, read_write> y: array<f32>;     // (rows, C)
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;  // (rows)
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>;  // (rows)
override has_bias: bool = false;

const LANES = 64u;
var<workgroup> sums: array<f32, LANES>;

/// The sum of all invocations' values.
fn total(value: f32, lane: u32) -> f32 {
  sums[lane] = value;
  workgroupBarrier();
  for (var width = LANES / 2u; width > 0u; width /= 2u) {
    if (lane < width) { sums[lane] += sums[lane + width]; }
    workgroupBarrier();
  }
  let sum = sums[0];
  workgroupBarrier(); // all lanes have read the sum before the next call overwrites it
  return sum;
}

@compute @workgroup_size(LANES)
fn layer_norm_forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let begin = row * params.C;
  let end = begin + params.C;
  let length = f32(params.C);

  var sum = 0.0;
  for (var i = begin + lane; i < end; i += LANES) { sum += x[i]; }
  let center = total(sum, lane) / length;

  var squares = 0.0;
  for (var i = begin + lane; i < end; i += LANES) {
    let d = x[i] - center;
    squares += d * d;
  }
  let scale = 1.0 / sqrt(total(squares, lane) / length + params.epsilon);

  for (var c = lane; c < params.C; c += LANES) {
    var shift = 0.0;
    if (has_bias) { shift = bias[c]; }
    y[begin + c] = (x[begin + c] - center) * scale * weight[c] + shift;
  }
  if (lane == 0u) {
    mean[row] = center;
    rstd[row] = scale;
  }
}
`;
