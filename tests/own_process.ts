/**
 * Running a part of a test as a program of its own: test files run side by side in one process, whose
 * size says nothing about any of them.
 */
import assert from "node:assert/strict";

/** @returns what the program printed, which is one JSON value */
export async function runOwnProcess<T>(program: string): Promise<T> {
  const config = new URL("./deno.json", import.meta.url).pathname;
  const { stdout, success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--config", config, program],
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    stderr: "inherit",
  }).output();
  assert(success, `${program} ended well`);
  return JSON.parse(new TextDecoder().decode(stdout));
}
