export default /* wgsl */ `// The gradient of GELU in its tanh approximation, y = ½ x (1 + tanh u), u = √(2/π) (x + 0.044715 x³). With a = |x|, u
// of a, and e = exp(−2u), so that ½ (1 + tanh u) = 1 / (1 + e):
//
//   dx += dy · (x < 0 ? k(a) : 1 − k(a)),  k(a) = e / (1 + e) · (1 − a · 2u′ / (1 + e)),
//   u′ = √(2/π) (1 + 3 · 0.044715 a²)
//
// WGSL's tanh may be off by 1e-5, and is not defined for large arguments on all hardware; exp is good.
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
const SQRT_2_OVER_PI = 0.7978845608;
const CUBIC = 0.044715;
/// Beyond it, k is no normal float.
const FAR = 9.9;

/// k(a) for a ≥ 0.
fn slope(magnitude: f32) -> f32 {
  let a = min(magnitude, FAR);
  let e = exp(-2.0 * SQRT_2_OVER_PI * (a + CUBIC * a * a * a));
  let rest = 1.0 / (1.0 + e);
  let du = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * a * a);
  return e * rest * (1.0 - a * 2.0 * du * rest);
}

@compute @workgroup_size(LANES)
fn gelu_tanh_backward(
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
