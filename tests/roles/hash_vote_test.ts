import assert from "node:assert/strict";
import { judge } from "../../roles/hash_vote.ts";

const votes = (...hashes: [node: number, hash: string][]) => new Map(hashes);

Deno.test("of three states the one that is alone is wrong, be it mine, the primary's or another's", () => {
  assert.equal(judge(votes([0, "a"], [1, "b"], [2, "a"]), 1), "me");
  assert.equal(judge(votes([0, "a"], [1, "b"], [2, "b"]), 1), "other");
  assert.equal(judge(votes([0, "a"], [1, "a"], [2, "b"]), 1), "other");
});

Deno.test("without a majority nobody is wrong by vote: with two, or when all differ", () => {
  assert.equal(judge(votes([0, "a"], [1, "b"]), 1), "undecided");
  assert.equal(judge(votes([0, "a"], [1, "b"], [2, "c"]), 1), "undecided");
  assert.equal(judge(votes([1, "b"]), 1), "other", "who is asked alone has nobody against it");
  assert.equal(judge(new Map(), 1), "undecided");
});
