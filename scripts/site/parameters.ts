/** Names for parameters that a function takes apart, as in `f({ a, b })`, and comments under these names. */
import type { Parameter, Reflection, Signature } from "./typedoc.ts";

const properties = ({ type }: Parameter) => type?.declaration?.children?.map(({ name }) => name) ?? [];

/**
 * Gives names to the parameters `unnamed` of a signature: options, unless the comment has another name for one. TypeDoc shows
 * a comment beside a property where it is `@param options.property`; here it may also be `@param property`.
 *
 * The comment of an overloaded function describes the parameters of all overloads. Each overload gets its own.
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
