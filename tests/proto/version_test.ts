/**
 * Guards the wire: whoever changes what nodes say to each other has to decide whether an older node
 * would misread it, and to say so in proto/version.ts.
 */
import assert from "node:assert/strict";
import { PROTOCOL_VERSION } from "../../proto/version.ts";

/** Of all of proto/ but the settings, without comments and white space, as of each version. */
const DIGESTS: Readonly<Record<number, string>> = {
  1: "ab14be643cea2849",
};

const NOT_ON_THE_WIRE = new Set(["cluster_config.ts", "version.ts"]);

async function digestOfWire(): Promise<string> {
  const dir = new URL("../../proto/", import.meta.url);
  const names = Array.from(Deno.readDirSync(dir), (entry) => entry.name)
    .filter((name) => name.endsWith(".ts") && !NOT_ON_THE_WIRE.has(name)).sort();
  let text = "";
  for (const name of names) text += `${name}\n${await Deno.readTextFile(new URL(name, dir))}\n`;
  const bare = text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/\/\/.*$/gm, "")
    .replaceAll(/[\s,]+/g, " ");
  const bytes = new TextEncoder().encode(bare);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex().slice(0, 16);
}

Deno.test("the wire changes only together with PROTOCOL_VERSION or this test's record of it", async () => {
  assert.equal(
    await digestOfWire(),
    DIGESTS[PROTOCOL_VERSION],
    "Something in proto/ changed. If an older node would misread it, raise PROTOCOL_VERSION and add " +
      "its line of history; then record the new digest here",
  );
});
