export default /* wgsl */ `// AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) over all parameters at once, in place:
//
//   g = gradient · min(1, clip / (norm + 1e-6))
//   m += (1 − β₁)(g − m),  v = β₂ v + (1 − β₂) g²,  p = shrink · p − rate · m / (√v · scale + ε)
//
// gain1 = 1 − β₁ and gain2 = 1 − β₂ are computed on the host in f64. Values that change from step to step are read from
// 'step'. The first 'decayed' parameters shrink (weight decay), the rest do not. A workgroup owns 1024 parameters, and
// an invocation takes every 256th of them.

struct Params { n: u32, decayed: i32, gain1: f32, beta2: f32, gain2: f32, epsilon: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;        // (n)
@group(0) @binding(2) var<storage, read> norm: array<f32>;            // (1): the norm of all gradients
@group(0) @binding(3) var<storage, read> step: array<f32>;            // (4): shrink, rate, scale, clip
@group(0) @binding(4) var<storage, read_write> parameter: array<f32>; // (n)
@group(0) @binding(5) var<storage, read_write> m: array<f32>;         // (n)
@group(0) @binding(6) var<storage, read_write> v: array<f32>;         // (n)

const LANES = 256u;
const PER_LANE = 4u;

@compute @workgroup_size(LANES)
fn adamw(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * LANES * PER_LANE + lane;
  // Without clipping, clip is infinite; so compare it, and do not divide it.
  let length = norm[0] + 1e-6;
  var coefficient = 1.0;
  if (length > step[3]) { coefficient = step[3] / length; }

  for (var k = 0u; k < PER_LANE; k++) {
    let i = first + k * LANES;
    if (i >= params.n) { return; }
    let g = coefficient * gradient[i];
    let first_moment = m[i] + params.gain1 * (g - m[i]);
    let second_moment = params.beta2 * v[i] + params.gain2 * g * g;
    let shrink = select(1.0, step[0], i < u32(params.decayed));
    parameter[i] = shrink * parameter[i] - step[1] * first_moment / (sqrt(second_moment) * step[2] + params.epsilon);
    m[i] = first_moment;
    v[i] = second_moment;
  }
}
`;
