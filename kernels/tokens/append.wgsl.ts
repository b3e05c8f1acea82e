export default /* wgsl */ `// ring[b, count mod S] = ids[b], then count += 1: the next token of each of B sequences. One workgroup does it all.

struct Params { B: u32, S: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<i32>; // (B)
@group(0) @binding(2) var<storage, read_write> ring: array<i32>; // (B, S)
@group(0) @binding(3) var<storage, read_write> count: array<i32>; // (1)

@compute @workgroup_size(64)
fn append(@builtin(local_invocation_index) lane: u32) {
  let number = u32(count[0]);
  for (var b = lane; b < params.B; b += 64u) {
    ring[b * params.S + number % params.S] = ids[b];
  }
  storageBarrier(); // every invocation has read count
  if (lane == 0u) {
    count[0] = i32(number + 1u);
  }
}
`;
