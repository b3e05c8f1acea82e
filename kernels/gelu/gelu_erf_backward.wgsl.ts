export default /* wgsl */ `// The gradient of the exact GELU, y = x · Φ(x), Φ′(x) = exp(−x² / 2) / √(2π), with a = |x|:
//
//   dx += dy · (Φ(x) + x · Φ′(x)) = dy · (x < 0 ? k(a) : 1 − k(a)),  k(a) = 1 − Φ(a) − a · Φ′(a)
//
// WGSL has no erf. k(a) is exp(−a² / 2) · s(a), s a minimax polynomial of degree 10: within 7e-8.
//
// A workgroup owns 1024 elements, of which an invocation takes every 256th.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;        // (n)
@group(0) @binding(2) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;  // (n)
override fresh_dx: bool = false; // dx holds nothing yet

const LANES = 256u;
const PER_LANE = 4u;
/// Beyond it, k is no normal float.
const FAR = 12.9;

/// k(a) for a ≥ 0.
fn slope(magnitude: f32) -> f32 {
  let a = min(magnitude, FAR);
  var s = 1.6363094e-6;
  s = s * a - 3.529041e-5;
  s = s * a + 3.403593e-4;
  s = s * a - 1.9771848e-3;
  s = s * a + 7.945713e-3;
  s = s * a - 0.02432358;
  s = s * a + 0.061163906;
  s = s * a - 0.13251874;
  s = s * a + 0.24991824;
  s = s * a - 0.797879;
  s = s * a + 0.49999994;
  return exp(-0.5 * a * a) * s;
}

@compute @workgroup_size(LANES)
fn gelu_erf_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * LANES * PER_LANE + lane;
  for (var k = 0u; k < PER_LANE; k++) {
    let i = first + k * LANES;
    if (i >= params.n) { return; }
    let small = slope(abs(x[i]));
    let value = dy[i] * select(1.0 - small, small, x[i] < 0.0);
    dx[i] = select(dx[i], 0.0, fresh_dx) + value;
  }
}
`;
