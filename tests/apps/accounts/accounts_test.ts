/** Accounts: signing up, passwords, and what happens when things happen at once. */
import assert from "node:assert/strict";
import { KvError } from "../../../kv/errors.ts";
import { decodeText } from "../../../kv/kv.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
import { CHEAP, from, makeAccounts, PASSWORD } from "./accounts_fixture.ts";

const code = (expected: string) => (error: unknown) =>
  (error as { code?: string }).code === expected;

Deno.test("create() lets one of 50 simultaneous sign-ups for one name win", async () => {
  const { frontend, accounts } = makeAccounts();
  const frontends = [frontend(), frontend(), frontend()];
  const results = await Promise.allSettled(
    Array.from(
      { length: 50 },
      (_, i) => frontends[i % 3]!.create({ username: "alice", password: `${PASSWORD} ${i}` }),
    ),
  );
  const winners = results.flatMap((result, i) => result.status === "fulfilled" ? [i] : []);
  assert.equal(winners.length, 1);
  for (const result of results) {
    if (result.status === "rejected") assert.equal(result.reason.code, "name_taken");
  }
  const won = { username: "alice", password: `${PASSWORD} ${winners[0]}`, ...from };
  assert.equal((await accounts.logIn(won)).account.username, "alice");
});

Deno.test("create() refuses names that break a rule, each with a reason", async () => {
  const { accounts } = makeAccounts();
  const names = ["", "a", "Alice", "1alice", "al ice", "alice.", "alice-", "a..b", "a".repeat(33)];
  for (const username of [...names, "älice", "alice/account", "=users", "postmaster", "root"]) {
    const attempt = accounts.create({ username, password: PASSWORD });
    await assert.rejects(attempt, code("invalid_username"), username);
  }
});

Deno.test("create() lets an operator take a reserved name", async () => {
  const { accounts } = makeAccounts();
  const made = await accounts.create({
    username: "postmaster",
    password: PASSWORD,
    operator: true,
  });
  assert.equal(made.address, "postmaster@penncloud.test");
});

Deno.test("create() refuses weak passwords", async () => {
  const { accounts } = makeAccounts();
  const weak = ["", "short", "12345678", "Password", "aaaaaaaaaa", "alice123", "x".repeat(257)];
  for (const password of weak) {
    const attempt = accounts.create({ username: "alice", password });
    await assert.rejects(attempt, code("weak_password"), password);
  }
});

Deno.test("create() keeps no password in the store", async () => {
  const { accounts, kv } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  const { token } = await accounts.logIn({ username: "alice", password: PASSWORD, ...from });
  const { password } = await accounts.appPasswords.create("alice", "laptop");
  for (const cell of (await kv.scan({ limit: 1000 })).cells) {
    const text = `${cell.row} ${cell.column} ${decodeText(cell.value!)}`;
    for (const secret of [PASSWORD, token, password, password.replaceAll("-", "")]) {
      assert.ok(!text.includes(secret), `${cell.row}/${cell.column} holds a secret`);
    }
  }
});

Deno.test("create() that was cut short is finished by the next login", async () => {
  let broken = true;
  const { accounts } = makeAccounts();
  const made: string[] = [];
  accounts.onCreate((username) => {
    if (broken) throw new KvError("unavailable", "no primary");
    made.push(username);
    return Promise.resolve();
  });
  await assert.rejects(
    accounts.create({ username: "alice", password: PASSWORD }),
    code("unavailable"),
  );
  broken = false;
  await accounts.logIn({ username: "alice", password: PASSWORD, ...from });
  assert.deepEqual(made, ["alice"]);
  await accounts.logIn({ username: "alice", password: PASSWORD, ...from });
  assert.deepEqual(made, ["alice"]);
});

Deno.test("create() that was cut short can be repeated with the same password only", async () => {
  let broken = true;
  const { accounts } = makeAccounts();
  accounts.onCreate(() => {
    if (broken) throw new KvError("unavailable", "no primary");
    return Promise.resolve();
  });
  await assert.rejects(accounts.create({ username: "alice", password: PASSWORD }));
  broken = false;
  const stranger = accounts.create({ username: "alice", password: "something else entirely" });
  await assert.rejects(stranger, code("name_taken"));
  const again = await accounts.create({ username: "alice", password: PASSWORD });
  assert.equal(again.username, "alice");
  const third = accounts.create({ username: "alice", password: PASSWORD });
  await assert.rejects(third, code("name_taken"));
});

Deno.test("create() survives a store that fails at any of its calls", async () => {
  for (let failing = 1; failing < 30; failing++) {
    let calls = 0;
    const kv = new MemoryKv({
      beforeCall: () => {
        if (++calls === failing) throw new KvError("unavailable", "no primary");
      },
    });
    const { accounts, frontend } = makeAccounts(kv);
    let hooked = 0;
    const hook = () => Promise.resolve(void hooked++);
    accounts.onCreate(hook);
    const first = await accounts.create({ username: "alice", password: PASSWORD })
      .then(() => true, () => false);
    calls = 1000;
    const other = frontend();
    other.onCreate(hook);
    if (!first) {
      await other.create({ username: "alice", password: PASSWORD });
    }
    assert.ok(hooked >= 1);
    assert.deepEqual((await other.list()).users.map((user) => user.username), ["alice"]);
    if (first && calls < failing) break;
  }
});

Deno.test("logIn() takes a name with capitals, spaces or the mail domain", async () => {
  const { accounts } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  for (const username of ["alice", " Alice ", "ALICE@penncloud.test"]) {
    const { account } = await accounts.logIn({ username, password: PASSWORD, ...from });
    assert.equal(account.username, "alice");
  }
});

Deno.test("logIn() says the same for a wrong password and for nobody's name", async () => {
  const { accounts } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  const messages = [];
  for (const username of ["alice", "nobody-here", "=users", "not a name"]) {
    try {
      await accounts.logIn({ username, password: "wrong password", ...from });
      assert.fail("logged in");
    } catch (error) {
      messages.push((error as Error).message);
    }
  }
  assert.equal(new Set(messages).size, 1);
});

Deno.test("logIn() raises the cost of a hash that was made at a lower one", async () => {
  const { accounts, kv, env } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  const { Accounts } = await import("../../../apps/accounts/accounts.ts");
  const dearer = new Accounts({
    kv,
    env,
    mailDomain: "penncloud.test",
    sessionDays: 14,
    hashCost: { ...CHEAP, passes: 2 },
  });
  const hash = async () =>
    JSON.parse(decodeText((await kv.get("alice/account", "account"))!.value)).passwordHash;
  assert.match(await hash(), /^\$argon2id\$v=19\$m=64,t=1,p=1\$/);
  await dearer.logIn({ username: "alice", password: PASSWORD, ...from });
  assert.match(await hash(), /^\$argon2id\$v=19\$m=64,t=2,p=1\$/);
  await accounts.logIn({ username: "alice", password: PASSWORD, ...from });
});

Deno.test("changePassword() ends every session but the one that asks", async () => {
  const { accounts, frontend } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  const logIn = () => accounts.logIn({ username: "alice", password: PASSWORD, ...from });
  const [mine, other, third] = [await logIn(), await logIn(), await logIn()];
  const next = "a heron in the reeds";
  await accounts.changePassword({
    username: "alice",
    current: PASSWORD,
    next,
    address: from.address,
    keep: mine.session,
  });
  assert.ok(await frontend().authenticate(mine.token));
  assert.equal(await frontend().authenticate(other.token), null);
  assert.equal(await frontend().authenticate(third.token), null);
  await assert.rejects(logIn(), code("wrong_credentials"));
  await accounts.logIn({ username: "alice", password: next, ...from });
});

Deno.test("changePassword() asks for the old password and refuses a weak new one", async () => {
  const { accounts } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  const change = (current: string, next: string) =>
    accounts.changePassword({ username: "alice", current, next, address: null });
  await assert.rejects(change("not it at all", "a heron in the reeds"), code("wrong_password"));
  await assert.rejects(change(PASSWORD, "12345678"), code("weak_password"));
});

Deno.test("changePassword() has ended other sessions even if it dies right after its write", async () => {
  let dead = false;
  const kv = new MemoryKv({
    beforeCall: (call, row) => {
      if (dead || (call === "getRow" && row === "alice/sessions")) {
        dead = true;
        throw new KvError("unavailable", "no primary");
      }
    },
  });
  const { accounts, frontend } = makeAccounts(kv);
  await accounts.create({ username: "alice", password: PASSWORD });
  const account = (await accounts.find("alice"))!;
  // startSession() also sweeps the list, so the failure is switched off until it is wanted.
  const list = kv.getRow.bind(kv);
  kv.getRow = () => Promise.resolve({ cells: [], next: null });
  const { token } = await accounts.startSession(account, from);
  kv.getRow = list;
  await assert.rejects(accounts.setPassword("alice", "a heron in the reeds"));
  dead = false;
  assert.equal(await frontend().authenticate(token), null);
});

Deno.test("verifyPassword() takes app passwords, with or without hyphens, until they are revoked", async () => {
  const { accounts } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  const { password, entry } = await accounts.appPasswords.create("alice", "laptop");
  const check = (typed: string) =>
    accounts.verifyPassword({ username: "alice", password: typed, address: null });
  assert.equal((await check(password)).username, "alice");
  assert.equal((await check(password.replaceAll("-", "").toUpperCase())).username, "alice");
  assert.equal((await check(PASSWORD)).username, "alice");
  assert.equal((await accounts.appPasswords.list("alice"))[0]!.lastUsedMs !== null, true);
  assert.equal(await accounts.appPasswords.revoke("alice", entry.id), true);
  assert.equal(await accounts.appPasswords.revoke("alice", entry.id), false);
  await assert.rejects(check(password), code("wrong_credentials"));
  await assert.rejects(
    accounts.logIn({ username: "alice", password, ...from }),
    code("wrong_credentials"),
  );
});

Deno.test("verifyPassword() forgets what it remembered when the password changes elsewhere", async () => {
  const { accounts, frontend } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  const check = () =>
    accounts.verifyPassword({ username: "alice", password: PASSWORD, address: null });
  await check();
  await check();
  await frontend().setPassword("alice", "a heron in the reeds");
  await assert.rejects(check(), code("wrong_credentials"));
});

Deno.test("setAdmin() survives a change of password at the same time", async () => {
  const { accounts, frontend } = makeAccounts();
  await accounts.create({ username: "alice", password: PASSWORD });
  await Promise.all([
    accounts.setAdmin("alice", true),
    frontend().setPassword("alice", "a heron in the reeds"),
    frontend().setPassword("alice", "a heron in the reeds"),
  ]);
  assert.equal((await accounts.find("alice"))!.admin, true);
  await accounts.logIn({ username: "alice", password: "a heron in the reeds", ...from });
});

Deno.test("list() goes through all users in the order of their names, page by page", async () => {
  const { accounts } = makeAccounts();
  const names = ["zoe", "ada", "linus", "bob", "margaret"];
  for (const username of names) await accounts.create({ username, password: PASSWORD });
  const found: string[] = [];
  let after: string | undefined;
  do {
    const page = await accounts.list({ limit: 2, ...(after === undefined ? {} : { after }) });
    found.push(...page.users.map((user) => user.username));
    after = page.next ?? undefined;
  } while (after !== undefined);
  assert.deepEqual(found, names.toSorted());
});
