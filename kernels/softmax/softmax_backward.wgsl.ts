export default /* wgsl */ `// The gradient along one axis of y = softmax(x), dx += y · (dy − Σ dy · y), or of y = log
// softmax(x), dx += dy − exp(y) · Σ dy.
//
// A workgroup owns one line along the axis: lane l takes its elements l, l + 64, …, and the lanes' results are combined
// by halves, so additions always have the same order.

struct Params { outer: u32, axis: u32, inner: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>; // (outer, axis, inner)
@group(0) @binding(2) var<storage, read> y: array<f32>; // (outer, axis, inner)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (outer, axis, inner)
override fresh_dx: bool = false; // dx holds garbage: write instead of adding

const LANES = 64u;
var<workgroup> partial: array<f32, LANES>;

fn sum_of_all(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let sum = partial[0];
  workgroupBarrier(); // all lanes have read this value before the next is written
  return sum;
}

// kernel.ts replaces these lines for the logarithm.
fn term(dy: f32, y: f32) -> f32 { return dy * y; }
fn added(dx: f32, dy: f32, y: f32, sum: f32) -> f32 { return dx + y * (dy - sum); }

@compute @workgroup_size(LANES)
fn softmax_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = group.x + group.y * groups.x;
  if (line >= params.outer * params.inner) { return; }
  let first = line / params.inner * params.axis * params.inner + line % params.inner;
  var sum = 0.0;
  for (var i = lane; i < params.axis; i += LANES) {
    let at = first + i * params.inner;
    sum += term(dy[at], y[at]);
  }
  sum = sum_of_all(sum, lane);
  for (var i = lane; i < params.axis; i += LANES) {
    let at = first + i * params.inner;
    dx[at] = added(select(dx[at], 0.0, fresh_dx), dy[at], y[at], sum);
  }
}
`;
