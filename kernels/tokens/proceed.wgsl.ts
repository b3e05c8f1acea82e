export default /* wgsl */ `// Ends a step of generation for R rows: ids = chosen, position += 1, history[first / R mod
// steps] = chosen, then first += R. One workgroup computes all rows.

struct Params { R: u32, steps: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> chosen: array<i32>; // (R)
@group(0) @binding(2) var<storage, read_write> ids: array<i32>; // (R)
@group(0) @binding(3) var<storage, read_write> position: array<i32>; // (R)
@group(0) @binding(4) var<storage, read_write> history: array<i32>; // (steps, R)
@group(0) @binding(5) var<storage, read_write> first: array<u32>; // (1)

@compute @workgroup_size(64)
fn proceed(@builtin(local_invocation_index) lane: u32) {
  let before = first[0];
  let place = before / params.R % params.steps * params.R;
  for (var r = lane; r < params.R; r += 64u) {
    history[place + r] = chosen[r];
    ids[r] = chosen[r];
    position[r] += 1;
  }
  storageBarrier(); // every invocation has read first
  if (lane == 0u) { first[0] = before + params.R; }
}
`;
