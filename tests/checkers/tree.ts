/**
 * Is a drive's tree a tree? Judges one state of it, given as the links that were found: every item is
 * reached from the root by exactly one way. No orphan, no cycle, no item linked twice, no two items of
 * one name in one folder, nothing below a file. Where it is known what must be there and what must
 * not, that is checked, too.
 *
 * Start at {@link checkTree}.
 */
import { Problems, type Verdict } from "./verdict.ts";

/** "This folder holds this item under this name." One for each link found, doubles included. */
export interface TreeLink {
  readonly parent: string;
  readonly name: string;
  readonly id: string;
  /** Default: a folder, which may hold others. */
  readonly kind?: "folder" | "file";
}

export interface TreeState {
  /** Is no item of any folder. */
  readonly root: string;
  /** Further places where trees may hang, say the trash. */
  readonly otherRoots?: readonly string[];
  readonly links: readonly TreeLink[];
  /** Items that were acknowledged and never removed, and where they must be, if known. */
  readonly expected?: readonly { readonly id: string; readonly parent?: string }[];
  /** Items whose creation was refused, or whose removal was acknowledged. */
  readonly forbidden?: Iterable<string>;
}

export function checkTree(state: TreeState): Verdict {
  const problems = new Problems();
  const roots = new Set([state.root, ...(state.otherRoots ?? [])]);
  const byId = new Map<string, TreeLink>();
  const names = new Set<string>();
  for (const link of state.links) {
    const { id, parent, name } = link, other = byId.get(id);
    if (roots.has(id)) problems.add(`the root "${id}" is an item of "${parent}"`);
    if (other !== undefined) {
      problems.add(
        `"${id}" is linked twice: as "${other.name}" in "${other.parent}" and as "${name}" in "${parent}"`,
      );
    } else byId.set(id, link);
    const place = JSON.stringify([parent, name]);
    if (names.has(place)) problems.add(`"${parent}" holds two items called "${name}"`);
    names.add(place);
  }
  for (const { id, parent, name } of byId.values()) {
    if (roots.has(parent)) continue;
    const folder = byId.get(parent);
    if (folder === undefined) {
      problems.add(`"${id}" ("${name}") is an orphan: its folder "${parent}" does not exist`);
    } else if (folder.kind === "file") {
      problems.add(`"${id}" ("${name}") lies in "${parent}", which is a file`);
    }
  }
  for (const cycle of cyclesOf(byId)) {
    problems.add(`a cycle: ${[...cycle, cycle[0]!].map((id) => `"${id}"`).join(" in ")}`);
  }
  for (const { id, parent } of state.expected ?? []) {
    const link = byId.get(id);
    if (link === undefined) problems.add(`"${id}" was acknowledged and is not there`);
    else if (parent !== undefined && link.parent !== parent) {
      problems.add(`"${id}" must be in "${parent}" and is in "${link.parent}"`);
    }
  }
  for (const id of state.forbidden ?? []) {
    if (byId.has(id)) problems.add(`"${id}" must not be there`);
  }
  return problems.verdict;
}

/** Each item has one parent here, so from every item there is one way up; each is walked once. */
function cyclesOf(byId: ReadonlyMap<string, TreeLink>): string[][] {
  const done = new Set<string>(), cycles: string[][] = [];
  for (const start of byId.keys()) {
    const path: string[] = [], places = new Map<string, number>();
    let at: string | undefined = start;
    while (at !== undefined && byId.has(at) && !done.has(at) && !places.has(at)) {
      places.set(at, path.length);
      path.push(at);
      at = byId.get(at)!.parent;
    }
    const begin = at === undefined ? undefined : places.get(at);
    if (begin !== undefined) cycles.push(path.slice(begin));
    for (const id of path) done.add(id);
  }
  return cycles;
}
