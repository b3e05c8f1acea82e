export default /* wgsl */ `// Dropout (Srivastava et al. 2014): y = x · (keep ? gain : 0).
//
// Element i draws word i mod 4 of Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1,
// 2, 3", 2011) with the counter (⌊i / 4⌋, stream, offset, 0) and the key (seed, 0). It is dropped if the word's upper
// 24 bits are below threshold. All devices draw the same bits.
//
// A workgroup owns 1024 elements, an invocation the four of one counter.

struct Params { n: u32, seed: i32, stream: i32, threshold: i32, gain: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;        // (n)
@group(0) @binding(2) var<storage, read> offset: array<i32>;   // (1): another number in each training step
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // (n)

const LANES = 256u;

// The upper 32 bits of a product, computed from 16-bit halves.
fn multiply_high(a: u32, b: u32) -> u32 {
  let middle = (a >> 16u) * (b & 0xffffu) + (((a & 0xffffu) * (b & 0xffffu)) >> 16u);
  let carry = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (carry >> 16u);
}

fn philox(counter: vec4u, seed: u32) -> vec4u {
  var c = counter;
  var key = vec2u(seed, 0u);
  for (var round = 0u; round < 10u; round++) {
    let high = vec2u(multiply_high(0xd2511f53u, c.x), multiply_high(0xcd9e8d57u, c.z));
    c = vec4u(high.y ^ c.y ^ key.x, 0xcd9e8d57u * c.z, high.x ^ c.w ^ key.y, 0xd2511f53u * c.x);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

@compute @workgroup_size(LANES)
fn dropout(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = (group.x + group.y * groups.x) * LANES + lane;
  let words = philox(vec4u(block, u32(params.stream), u32(offset[0]), 0u), u32(params.seed));
  for (var k = 0u; k < 4u; k++) {
    let i = 4u * block + k;
    if (i >= params.n) { return; }
    y[i] = x[i] * select(0.0, params.gain, (words[k] >> 8u) >= u32(params.threshold));
  }
}
`;
