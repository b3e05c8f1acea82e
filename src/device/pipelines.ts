import type { AnyPass } from "../kernel.ts";
import type { Launch } from "../engine/device.ts";
import type { GpuErrors } from "./gpu_errors.ts";
import { shaderError } from "./shader_errors.ts";

export interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly number: number;
}

/** Compiles shaders, each once for every variant: which operands are present, fresh, bf16, q8_0. */
export class Pipelines {
  /** Number of pipelines made so far. */
  count = 0;
  #compiled = new Map<AnyPass, Map<number, Compiled>>();

  constructor(readonly gpu: GPUDevice, readonly errors: GpuErrors) {}

  /** Returns the pipeline of a pass, compiled on first use. @param variant the number of the variant (`variantOf`) */
  get(pass: AnyPass, launch: Launch, { variant, workspace }: { variant: number; workspace: boolean }): Compiled {
    let variants = this.#compiled.get(pass);
    if (!variants) this.#compiled.set(pass, variants = new Map());
    let compiled = variants.get(variant);
    if (!compiled) variants.set(variant, compiled = this.#compile(pass, launch, workspace));
    return compiled;
  }

  #compile(pass: AnyPass, { kernel, storages, fresh }: Launch, workspace: boolean): Compiled {
    const constants: Record<string, number> = {};
    for (const { name, optional } of kernel.operands) {
      const declares = (flag: string) => new RegExp(`override\\s+${flag}\\b`).test(pass.source);
      if (optional && declares(`has_${name}`)) constants[`has_${name}`] = name in storages ? 1 : 0;
      if (declares(`fresh_${name}`)) constants[`fresh_${name}`] = fresh.includes(name) ? 1 : 0;
      if (declares(`q8_${name}`)) constants[`q8_${name}`] = storages[name]?.dtype === "q8_0" ? 1 : 0;
      if (declares(`bf16_${name}`)) constants[`bf16_${name}`] = storages[name]?.dtype === "bf16" ? 1 : 0;
    }
    const visibility = GPUShaderStage.COMPUTE,
      types: GPUBufferBindingType[] = kernel.operands.map(({ role }) =>
        role === "reads" ? "read-only-storage" : "storage"
      );
    if (workspace) types.push("storage");
    let module: GPUShaderModule;
    const create = () => {
      const layout = this.gpu.createBindGroupLayout({
        entries: [
          { binding: 0, visibility, buffer: { type: "uniform" } },
          ...types.map((type, i) => ({ binding: i + 1, visibility, buffer: { type } })),
        ],
      });
      module = this.gpu.createShaderModule({ label: pass.entry, code: pass.source });
      const pipeline = this.gpu.createComputePipeline({
        label: pass.entry,
        layout: this.gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: pass.entry, constants },
      });
      return { pipeline, layout, number: this.count++ };
    };
    return this.errors.scoped(`${kernel.name}: ${pass.entry}`, create, () => shaderError(module, pass));
  }
}
