/** Gives names to parameters that a function destructures, as in `f({ a, b })`, and moves comments to these names. */
import type { Parameter, Reflection, Signature } from "./typedoc.ts";

const properties = ({ type }: Parameter) => type?.declaration?.children?.map(({ name }) => name) ?? [];

/**
 * Gives names to the `unnamed` parameters of a signature: `options`, or the name that a `@param` of the comment has.
 * TypeDoc shows a comment beside a property if the tag is `@param options.property`. Here, `@param property` is
 * allowed, too.
 *
 * The comment of an overloaded function describes the parameters of all overloads. Each tag is moved to the overload
 * that has the parameter.
 */
export function nameParameters({ comment, parameters = [], parent }: Signature, unnamed: readonly Parameter[]): void {
  unnamed.forEach((parameter, index) => parameter.name = `options${index || ""}`);
  for (const tag of comment?.blockTags ?? []) {
    const [first, ...rest] = tag.name?.split(".") ?? [], isIt = ({ name }: Reflection) => name === first;
    if (tag.tag !== "@param" || (rest.length === 0 && parameters.some(isIt))) continue;
    const property = rest[0] ?? first, owner = unnamed.find((one) => properties(one).includes(property));
    if (owner) tag.name = `${owner.name}.${property}`;
    else if (rest.length > 0) continue;
    else if (unnamed.length > 0) unnamed[0].name = first;
    else {
      parent?.signatures?.find(({ parameters }) => parameters?.some(isIt))?.comment?.blockTags.push(tag);
      comment!.blockTags = comment!.blockTags.filter((one) => one !== tag);
    }
  }
}
