export default /* wgsl */ `// counter += by, wrapping at 32 bits. One invocation does it.

struct Params { by: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> counter: array<i32>; // (1)

@compute @workgroup_size(1)
fn advance() {
  counter[0] += params.by;
}
`;
