/** The look in numbers: contrast of the colours that meet, and the icons that exist. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { ICON_NAMES, SPRITE_VERSION } from "../../web/ui/icons/icon_names.ts";

const ui = (file: string) => Deno.readTextFile(new URL(`../../web/ui/${file}`, import.meta.url));

interface Colour {
  readonly light: string;
  readonly dark: string;
}

async function colours(): Promise<Map<string, Colour>> {
  const css = await ui("tokens.css");
  const found = css.matchAll(/--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);/g);
  return new Map(
    [...found].map(([, name, light, dark]) => [name!, { light: light!, dark: dark! }]),
  );
}

function luminance(hex: string): number {
  const channels = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * channels[0]! + 0.7152 * channels[1]! + 0.0722 * channels[2]!;
}

function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high! + 0.05) / (low! + 0.05);
}

/** Text and what it stands on: at least 4.5 to 1 (WCAG 2.2 AA). */
const TEXT_ON: readonly (readonly [string, readonly string[]])[] = [
  ["text", [
    "surface",
    "raised",
    "sunken",
    "accent-soft",
    "danger-soft",
    "warning-soft",
    "info-soft",
  ]],
  ["muted", ["surface", "raised", "sunken", "accent-soft"]],
  ["accent-text", ["surface", "raised", "accent-soft"]],
  ["on-accent", ["accent", "accent-hover"]],
  ["on-danger", ["danger"]],
  ["danger", ["surface", "raised", "danger-soft"]],
  ["warning", ["surface", "raised", "warning-soft"]],
  ["success", ["surface", "raised", "success-soft"]],
  ["info", ["surface", "raised", "info-soft"]],
  ["on-inverse", ["inverse"]],
  ["inverse-accent", ["inverse"]],
  ["on-accent", [1, 2, 3, 4, 5, 6, 7, 8].map((hue) => `hue-${hue}`)],
];

/** Outlines and marks that carry meaning: at least 3 to 1. */
const MARK_ON: readonly (readonly [string, readonly string[]])[] = [
  ["line-strong", ["raised", "surface"]],
  ["accent", ["surface", "raised"]],
  ["star", ["raised"]],
];

for (const theme of ["light", "dark"] as const) {
  Deno.test(`text and marks stand out enough in the ${theme} theme`, async () => {
    const all = await colours(), weak: string[] = [];
    const check = (pairs: typeof TEXT_ON, least: number) => {
      for (const [front, backs] of pairs) {
        for (const back of backs) {
          const [a, b] = [all.get(front), all.get(back)];
          assert.ok(a && b, `${front} or ${back} is not in tokens.css`);
          const ratio = contrast(a[theme], b[theme]);
          if (ratio < least) weak.push(`${front} on ${back}: ${ratio.toFixed(2)} < ${least}`);
        }
      }
    };
    check(TEXT_ON, 4.5);
    check(MARK_ON, 3);
    assert.deepEqual(weak, []);
  });
}

Deno.test("no style names a colour of its own", async () => {
  const files = ["base", "controls", "overlays", "content", "shell"].map((name) =>
    `styles/${name}.css`
  );
  for (const file of [...files, "../pages/pages.css"]) {
    const css = (await ui(file)).replaceAll(/\/\*.*?\*\//gs, "");
    assert.doesNotMatch(css, /#[0-9a-f]{3,8}\b|\brgba?\(|\bhsla?\(/i, file);
  }
});

Deno.test("the sprite holds every icon that has a name, and its version is its hash", async () => {
  const sprite = await ui("icons/sprite.svg");
  const inSprite = [...sprite.matchAll(/<symbol id="([\w-]+)"/g)].map((match) => match[1]);
  assert.deepEqual(inSprite, [...ICON_NAMES]);
  assert.equal(createHash("sha256").update(sprite).digest("hex").slice(0, 8), SPRITE_VERSION);
});
