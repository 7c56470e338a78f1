/** Sessions and limits on attempts, over several frontends. */
import assert from "node:assert/strict";
import { ADDRESS_LIMITS, USER_LIMITS, WINDOW_MS } from "../../../apps/accounts/login_limit.ts";
import { digestId } from "../../../apps/accounts/secret_token.ts";
import { SESSIONS_MAX, TOUCH_MS } from "../../../apps/accounts/sessions.ts";
import { from, makeAccounts, PASSWORD } from "./accounts_fixture.ts";

const DAY_MS = 24 * 60 * 60_000;

async function world() {
  const made = makeAccounts();
  await made.accounts.create({ username: "alice", password: PASSWORD });
  const logIn = (options: { password?: string; address?: string; username?: string } = {}) =>
    made.accounts.logIn({ username: "alice", password: PASSWORD, ...from, ...options });
  return { ...made, logIn };
}

Deno.test("a session that one frontend started is good at any other", async () => {
  const { frontend, logIn } = await world();
  const { token } = await logIn();
  const found = await frontend().authenticate(token);
  assert.equal(found?.account.username, "alice");
  assert.equal(found?.session.address, from.address);
});

Deno.test("a session ends when it is not used for its lifetime", async () => {
  const { accounts, env, logIn } = await world();
  const { token } = await logIn();
  env.nowMs += 14 * DAY_MS - 1;
  assert.ok(await accounts.authenticate(token));
  env.nowMs += 14 * DAY_MS - 1;
  assert.ok(await accounts.authenticate(token), "use prolongs it");
  env.nowMs += 14 * DAY_MS;
  assert.equal(await accounts.authenticate(token), null);
});

Deno.test("a session in use is written at most every few minutes", async () => {
  const { accounts, kv, env, logIn } = await world();
  const { token } = await logIn();
  let writes = 0;
  const apply = kv.apply.bind(kv);
  kv.apply = (op) => {
    writes++;
    return apply(op);
  };
  for (let i = 0; i < 20; i++) {
    env.nowMs += TOUCH_MS / 10;
    await accounts.authenticate(token);
  }
  assert.equal(writes, 2);
});

Deno.test("a session row's name begins with a letter and does not tell the token", async () => {
  const { kv, logIn } = await world();
  const { token } = await logIn();
  const rows = (await kv.scan({ limit: 1000 })).cells.map((cell) => cell.row)
    .filter((row) => row.endsWith("~session"));
  assert.deepEqual(rows, [`${digestId(token)}~session`]);
  assert.match(rows[0]!, /^[a-z][a-z2-7]{26}~session$/);
});

Deno.test("end() ends a user's own session only", async () => {
  const { accounts, logIn } = await world();
  await accounts.create({ username: "bob", password: PASSWORD });
  const { token, session } = await logIn();
  assert.equal(await accounts.sessions.end("bob", session.id), false);
  assert.ok(await accounts.authenticate(token));
  assert.equal(await accounts.sessions.end("alice", session.id), true);
  assert.equal(await accounts.authenticate(token), null);
  assert.deepEqual(await accounts.sessions.list("alice"), []);
});

Deno.test("the oldest session ends when a user has too many", async () => {
  const { accounts, env, logIn } = await world();
  const tokens: string[] = [];
  for (let i = 0; i < SESSIONS_MAX + 2; i++) {
    env.nowMs += 1000;
    tokens.push((await logIn()).token);
  }
  assert.equal((await accounts.sessions.list("alice")).length, SESSIONS_MAX);
  assert.equal(await accounts.authenticate(tokens[0]!), null);
  assert.ok(await accounts.authenticate(tokens.at(-1)!));
});

Deno.test("authenticate() takes garbage for nobody", async () => {
  const { accounts } = await world();
  for (const token of ["", "x", "a".repeat(43), "a".repeat(10_000), "\0", "=users"]) {
    assert.equal(await accounts.authenticate(token), null);
  }
});

Deno.test("attempts are counted over all frontends, and the right password waits too", async () => {
  const { env, frontend } = await world();
  const frontends = [frontend(), frontend()];
  const attempt = (i: number, password: string) =>
    frontends[i % 2]!.logIn({ username: "alice", password, ...from })
      .then(() => "in", (error) => error.code as string);
  for (let i = 0; i < USER_LIMITS.failedMax; i++) {
    assert.equal(await attempt(i, "wrong password"), "wrong_credentials");
  }
  assert.equal(await attempt(0, PASSWORD), "too_many_attempts");
  assert.equal(await attempt(1, PASSWORD), "too_many_attempts");
  env.nowMs += WINDOW_MS;
  assert.equal(await attempt(1, PASSWORD), "in");
});

Deno.test("a hundred guesses at once do not get past the limit", async () => {
  const { accounts } = await world();
  const results = await Promise.all(
    Array.from(
      { length: 100 },
      () =>
        accounts.logIn({ username: "alice", password: "wrong password", ...from })
          .catch((error) => error.code as string),
    ),
  );
  const looked = results.filter((result) => result === "wrong_credentials").length;
  assert.ok(looked <= USER_LIMITS.failedMax + USER_LIMITS.openMax, `${looked} were looked at`);
  assert.equal(
    await accounts.logIn({ username: "alice", password: PASSWORD, ...from })
      .catch((error) => error.code),
    "too_many_attempts",
  );
});

Deno.test("many logins at once with the right password all succeed", async () => {
  const { logIn } = await world();
  const results = await Promise.all(Array.from({ length: 40 }, () => logIn()));
  assert.equal(new Set(results.map((result) => result.token)).size, 40);
});

Deno.test("names that nobody has are limited like any other", async () => {
  const { logIn } = await world();
  const codes = [];
  for (let i = 0; i <= USER_LIMITS.failedMax; i++) {
    codes.push(await logIn({ username: "nobody" }).catch((error) => error.code));
  }
  assert.equal(codes.at(-2), "wrong_credentials");
  assert.equal(codes.at(-1), "too_many_attempts");
});

Deno.test("an address that tries many names is stopped, others are not", async () => {
  const { logIn } = await world();
  for (let i = 0; i < ADDRESS_LIMITS.failedMax; i++) {
    await logIn({ username: `guess${i}` }).catch(() => {});
  }
  await assert.rejects(
    logIn(),
    (error: { code?: string; retryAfterSeconds?: number }) =>
      error.code === "too_many_attempts" && error.retryAfterSeconds! > 0,
  );
  assert.ok(await logIn({ address: "198.51.100.7" }));
});

Deno.test("logging in rightly never uses up the attempts", async () => {
  const { logIn } = await world();
  for (let i = 0; i < ADDRESS_LIMITS.failedMax + 5; i++) await logIn();
});

Deno.test("counters of old windows are swept away", async () => {
  const { kv, env, logIn } = await world();
  for (let window = 0; window < 6; window++) {
    await logIn({ password: "wrong password" }).catch(() => {});
    env.nowMs += WINDOW_MS;
  }
  const counters = (await kv.scan({ limit: 1000 })).cells
    .filter((cell) => cell.row.endsWith("~attempts"));
  assert.ok(counters.length <= 4, `${counters.length} are left`);
});
