/**
 * Lint rules of this codebase, named in deno.json.
 *
 * `penncloud/through-env`: the store and the apps are handed the world as an `Env` (kv/env.ts), so that
 * a test can run them on a clock, a die and a disk of its own. One forgotten `Date.now()` and a
 * simulated run is no longer the same run twice.
 *
 * `penncloud/imports-point-down`: main → roles, cli → web → apps → kv → proto.
 *
 * `penncloud/mutants-in-tests`: the deliberate bugs of kv/mutant.ts are turned on by tests alone.
 */

/** Layers from the bottom up. A file may import from its own layer and from those below. */
const LAYERS: Readonly<Record<string, number>> = {
  proto: 0,
  kv: 1,
  apps: 2,
  web: 3,
  roles: 4,
  cli: 5,
};
/** What the layer below has to know of the one above it: keys sort in one way everywhere. */
const SHARED_FILES = ["/kv/key_order.ts"];
const FORBIDDEN_MEMBERS: readonly (readonly [object: string, member: string])[] = [
  ["Date", "now"],
  ["Math", "random"],
  ["performance", "now"],
  ["crypto", "randomUUID"],
  ["crypto", "getRandomValues"],
];
const FORBIDDEN_CALLS = ["setTimeout", "setInterval"];

/** The path below the repository's root: `kv/disk/wal.ts`. */
function placeOf(filename: string): string | null {
  const match = filename.replaceAll("\\", "/").match(
    /.*\/((?:proto|kv|apps|web|roles|cli)\/(?!.*\/tests\/).*)$/,
  );
  return match === null || filename.includes("/tests/") ? null : match[1]!;
}

const throughEnv: Deno.lint.Rule = {
  create(context) {
    const place = placeOf(context.filename);
    if (place === null || !/^(kv|apps)\//.test(place) || place.startsWith("kv/disk/")) return {};
    const report = (node: Deno.lint.Node, what: string) =>
      context.report({ node, message: `${what} is not for kv/ and apps/`, hint: "Ask the Env." });
    return {
      MemberExpression({ object, property, range }) {
        if (object.type !== "Identifier" || property.type !== "Identifier") return;
        const { name } = object, member = property.name;
        if (FORBIDDEN_MEMBERS.some(([o, m]) => o === name && m === member)) {
          context.report({
            range,
            message: `${name}.${member} is not for kv/ and apps/`,
            hint: "Ask the Env.",
          });
        }
      },
      CallExpression({ callee }) {
        if (callee.type === "Identifier" && FORBIDDEN_CALLS.includes(callee.name)) {
          report(callee, callee.name);
        }
      },
      NewExpression(node) {
        const { callee } = node;
        if (callee.type === "Identifier" && callee.name === "Date" && node.arguments.length === 0) {
          report(node, "new Date()");
        }
      },
      Identifier(node) {
        if (node.name === "Deno") report(node, "Deno");
      },
    };
  },
};

const importsPointDown: Deno.lint.Rule = {
  create(context) {
    const place = placeOf(context.filename);
    if (place === null) return {};
    const layer = place.split("/")[0]!;
    return {
      ImportDeclaration(node) {
        const from = String(node.source.value);
        if (!from.startsWith(".") || SHARED_FILES.some((file) => from.endsWith(file))) return;
        const target = new URL(from, `file:///${place}`).pathname.split("/")[1]!;
        if (!(target in LAYERS) || LAYERS[target]! <= LAYERS[layer]!) return;
        // cli/ and roles/ stand side by side: commands use the roles' sockets.
        context.report({
          node,
          message: `${layer}/ must not import from ${target}/`,
          hint: "Imports point one way: main → roles, cli → web → apps → kv → proto.",
        });
      },
    };
  },
};

const mutantsInTests: Deno.lint.Rule = {
  create(context) {
    const filename = context.filename.replaceAll("\\", "/");
    if (filename.includes("/tests/") || filename.endsWith("/kv/mutant.ts")) return {};
    const report = (node: Deno.lint.Node) =>
      context.report({
        node,
        message: "Only tests may turn a deliberate bug on",
        hint: "Outside tests/, kv/mutant.ts is there for `mutated` alone.",
      });
    const isMutants = (source: unknown) => String(source).endsWith("/mutant.ts");
    return {
      ImportDeclaration(node) {
        if (!isMutants(node.source.value)) return;
        for (const specifier of node.specifiers) {
          const { type } = specifier;
          const name = type === "ImportSpecifier" && specifier.imported.type === "Identifier"
            ? specifier.imported.name
            : null;
          if (name !== "mutated" && name !== "MutantName") report(specifier);
        }
      },
      ImportExpression(node) {
        const { source } = node;
        if (source.type === "Literal" && isMutants(source.value)) report(node);
      },
      ExportNamedDeclaration(node) {
        if (node.source != null && isMutants(node.source.value)) report(node);
      },
      ExportAllDeclaration(node) {
        if (isMutants(node.source.value)) report(node);
      },
    };
  },
};

export default {
  name: "penncloud",
  rules: {
    "through-env": throughEnv,
    "imports-point-down": importsPointDown,
    "mutants-in-tests": mutantsInTests,
  },
} satisfies Deno.lint.Plugin;
