/**
 * Loading a module when it is needed, and not a moment sooner.
 *
 * Deno reads everything that a plain `import("./x.ts")` names as soon as the importing file is
 * loaded, so that each of sixteen processes would hold the sources of all roles, some 10 MiB each.
 * Here the specifier is out of its sight; the type still names the file, so it is checked. The
 * packaging tools know this call by its shape: tools/find_modules.ts.
 *
 *     const { runMail } = await importLater<typeof import("./mail.ts")>("./mail.ts", import.meta.url);
 */
export async function importLater<Module>(specifier: string, base: string): Promise<Module> {
  return await import(new URL(specifier, base).href);
}
