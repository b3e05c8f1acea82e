export default /* wgsl */ `// The gradient of GELU, dx += dy · (x < 0 ? k(a) : 1 − k(a)) with a = |x|. For the exact
// GELU, y = x · Φ(x):
//
//   k(a) = 1 − Φ(a) − a · Φ′(a),  Φ′(a) = exp(−a² / 2) / √(2π)
//
// For the approximation, y = ½ x (1 + tanh u), with u computed from a. With e = exp(−2u), ½ (1 + tanh u) = 1 / (1 + e):
//
//   k(a) = e / (1 + e) · (1 − a · 2u′ / (1 + e)),  u = √(2/π) (a + 0.044715 a³),  u′ = √(2/π) (1 + 3 · 0.044715 a²)
//
// WGSL has no erf. The exact k(a) is computed as exp(−a² / 2) · s(a), with a minimax polynomial s of degree 10, to
// within 7e-8. WGSL's tanh may be off by 1e-5, and is not defined for large arguments on all hardware; exp is precise.
//
// A workgroup owns 1024 elements, of which an invocation takes every 256th.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;        // (n)
@group(0) @binding(2) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;  // (n)
override fresh_dx: bool = false; // dx holds garbage: write instead of adding

const LANES = 256u;
const PER_LANE = 4u;
const SQRT_2_OVER_PI = 0.7978845608;
const CUBIC = 0.044715;

// k(a) for a ≥ 0. kernel.ts replaces this line for the approximation.
fn slope(a: f32) -> f32 { return erf_slope(a); }

// Beyond 12.9, k(a) is below the least normal float.
fn erf_slope(magnitude: f32) -> f32 {
  let a = min(magnitude, 12.9);
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

// Beyond 9.9, k(a) is below the least normal float.
fn tanh_slope(magnitude: f32) -> f32 {
  let a = min(magnitude, 9.9);
  let e = exp(-2.0 * SQRT_2_OVER_PI * (a + CUBIC * a * a * a));
  let rest = 1.0 / (1.0 + e);
  let du = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * a * a);
  return e * rest * (1.0 - a * 2.0 * du * rest);
}

@compute @workgroup_size(LANES)
fn gelu_backward(
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
