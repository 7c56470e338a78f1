import assert from "node:assert/strict";
import { checkProof, checkVersion, HelloError, proveHello } from "../../proto/hello.ts";
import { PROTOCOL_VERSION } from "../../proto/version.ts";

const TERMS = {
  secret: "0123456789abcdef",
  cluster: "home",
  serverNonce: "00".repeat(16),
  clientNonce: "11".repeat(16),
  direction: "client",
  from: "backend/4",
} as const;

Deno.test("checkProof() accepts the proof of the same terms", async () => {
  const proof = await proveHello(TERMS);
  assert.match(proof, /^[0-9a-f]{64}$/);
  assert.equal(await checkProof(TERMS, proof), true);
});

Deno.test("checkProof() refuses a proof when any one term differs", async () => {
  const proof = await proveHello(TERMS);
  const others = [
    { secret: "0123456789abcdeF" },
    { cluster: "work" },
    { serverNonce: "22".repeat(16) },
    { clientNonce: "22".repeat(16) },
    { direction: "server" as const },
    { from: "backend/5" },
  ];
  for (const other of others) assert.equal(await checkProof({ ...TERMS, ...other }, proof), false);
  // Moving bytes from one term to the next is another statement too.
  assert.equal(await checkProof({ ...TERMS, cluster: "homeb", from: "ackend/4" }, proof), false);
});

Deno.test("checkVersion() names both versions and what to do", () => {
  checkVersion(PROTOCOL_VERSION);
  assert.throws(
    () => checkVersion(PROTOCOL_VERSION + 1),
    (error) =>
      error instanceof HelloError && error.code === "wrong_version" &&
      error.message.includes(String(PROTOCOL_VERSION + 1)) && error.message.includes("release"),
  );
});
