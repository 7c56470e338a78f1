/**
 * The mail node's doors with real clients (swaks, msmtp, nodemailer) over real sockets, and outside
 * delivery to a real SMTP server here. The store is one in memory. Where swaks or msmtp is not
 * installed, their tests say so and are skipped.
 */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import nodemailer from "nodemailer";
import { SMTPServer } from "smtp-server";
import { Accounts } from "../../apps/accounts/accounts.ts";
import { HEADER_BYTES_MAX, RECEIVED_MAX } from "../../apps/mail/header_block.ts";
import { Mail } from "../../apps/mail/mail.ts";
import { KvError } from "../../kv/errors.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { realEnv } from "../../roles/env.ts";
import { OutsideSmtp } from "../../roles/mail_outside.ts";
import { openSmtpDoors } from "../../roles/mail_smtp.ts";
import { makeSelfSignedCertificate } from "../../roles/supervisor_certificate.ts";
import { folderEntries, mailConfig } from "../apps/mail/mail_world.ts";
import { eventually } from "../eventually.ts";

const PASSWORD = "a long enough password";
const HASH_COST = { memoryKib: 64, passes: 1, parallelism: 1 };
const MESSAGE_BYTES_MAX = 512 * 1024;
const encoder = new TextEncoder();

const { certificate: cert, privateKey: key } = await makeSelfSignedCertificate({
  names: ["localhost", "127.0.0.1"],
  notBefore: new Date(Date.now() - 60_000),
  days: 2,
});
const tls = { cert, key };

interface House {
  readonly mail: Mail;
  readonly ports: { smtp: number; submission: number; submissions: number };
  /** What the store's next calls throw. */
  failWith: KvError | null;
}

async function withHouse(
  run: (house: House) => Promise<void>,
  options: {
    mail?: Record<string, unknown>;
    mx?: ConstructorParameters<typeof OutsideSmtp>[0]["mx"];
  } = {},
): Promise<void> {
  const house: { failWith: KvError | null } = { failWith: null };
  const kv = new MemoryKv({
    beforeCall: (call) => {
      const writes = call === "apply" || call === "transact";
      if (house.failWith !== null && writes) throw house.failWith;
    },
  });
  const env = { ...realEnv({ node: "mail/0" }), log: () => {} };
  const config = mailConfig({ message_max_bytes: MESSAGE_BYTES_MAX, ...options.mail });
  const { mail_domain: mailDomain } = config.cluster;
  const accounts = new Accounts({ kv, env, mailDomain, sessionDays: 1, hashCost: HASH_COST });
  const outside = new OutsideSmtp({
    mailDomain,
    relay: config.mail.relay,
    ...(options.mx === undefined ? {} : { mx: options.mx }),
  });
  const mail = new Mail({ kv, env, config, users: accounts, outside });
  for (const username of ["alice", "bob"]) await accounts.create({ username, password: PASSWORD });
  const doors = await openSmtpDoors({
    mail,
    accounts,
    env,
    host: "127.0.0.1",
    ports: { smtp: 0, submission: 0, submissions: 0 },
    tls,
    messageBytesMax: MESSAGE_BYTES_MAX,
    recipientsMax: 100,
  });
  try {
    await run(Object.assign(house, { mail, ports: doors.ports }));
  } finally {
    house.failWith = null;
    await doors.close();
    await mail.worker.stop();
  }
}

const inboxOf = async ({ mail }: House, user: string) => {
  await mail.worker.idle();
  return await folderEntries(mail, user);
};

async function installed(program: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: ["--version"], stdout: "null", stderr: "null" })
      .output()).success;
  } catch {
    return false;
  }
}

async function runProgram(program: string, args: string[], input = "") {
  const child = new Deno.Command(program, {
    args,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(encoder.encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

const swaks = (port: number, ...args: string[]) =>
  runProgram("swaks", [
    "--server",
    "127.0.0.1",
    "--port",
    String(port),
    "--timeout",
    "20",
    ...args,
  ]);

const hasSwaks = await installed("swaks");
const swaksTest = (name: string, run: (house: House) => Promise<void>) =>
  Deno.test({
    name: hasSwaks ? name : `${name} (skipped: swaks is not installed)`,
    ignore: !hasSwaks,
    fn: () => withHouse(run),
  });

/** Speaks SMTP by hand, for what well-behaved programs never send. */
async function dialogue(port: number, lines: readonly (string | Uint8Array)[]): Promise<string[]> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const reader = connection.readable.pipeThrough(new TextDecoderStream()).getReader();
  const writer = connection.writable.getWriter();
  let buffer = "";
  const replies: string[] = [];
  const reply = async () => {
    while (!/^\d{3} .*\r\n/m.test(buffer)) {
      const { done, value } = await reader.read();
      if (done) return replies.push("closed");
      buffer += value;
    }
    const end = buffer.indexOf("\r\n", buffer.search(/^\d{3} /m)) + 2;
    replies.push(buffer.slice(0, end).trim().split("\r\n").at(-1)!);
    buffer = buffer.slice(end);
  };
  await reply();
  for (const line of lines) {
    await writer.write(typeof line === "string" ? encoder.encode(`${line}\r\n`) : line)
      .catch(() => {});
    await reply();
    if (replies.at(-1) === "closed") break;
  }
  await writer.close().catch(() => {});
  await reader.cancel().catch(() => {});
  return replies;
}

swaksTest("swaks delivers a message to a user over plain SMTP and over STARTTLS", async (house) => {
  for (const args of [[], ["--tls"]]) {
    const { code, text } = await swaks(
      house.ports.smtp,
      "--from",
      "carol@else.example",
      "--to",
      "alice@penncloud.test,bob@penncloud.test",
      "--header",
      `Subject: =?utf-8?b?R3LDvMOfZQ==?= ${args.length}`,
      "--body",
      "first line\n.dot line\nlast line",
      ...args,
    );
    assert.equal(code, 0, text);
  }
  for (const user of ["alice", "bob"]) {
    const entries = await inboxOf(house, user);
    assert.deepEqual(entries.map(({ entry }) => entry.subject).sort(), ["Grüße 0", "Grüße 1"]);
    const { content } = await house.mail.read(user, entries[0]!.entry.id);
    assert.match(content.text, /first line\r?\n\.dot line\r?\nlast line/);
    assert.equal(content.from?.address, "carol@else.example");
  }
});

swaksTest("the SMTP door knows no strangers and relays for nobody", async (house) => {
  const { smtp } = house.ports;
  const unknown = await swaks(smtp, "--to", "nobody@penncloud.test", "--from", "c@else.example");
  assert.match(unknown.text, /550 5\.1\.1 There is nobody/);
  const relay = await swaks(smtp, "--to", "x@else.example", "--from", "c@else.example");
  assert.match(relay.text, /550 5\.7\.1 No relaying/);
  const auth = await swaks(
    smtp,
    "--tls",
    "--auth",
    "PLAIN",
    "--auth-user",
    "alice",
    "--auth-password",
    PASSWORD,
    "--to",
    "x@else.example",
    "--from",
    "alice@penncloud.test",
  );
  assert.notEqual(auth.code, 0);
});

swaksTest("a user submits mail with STARTTLS and over TLS, with PLAIN and LOGIN", async (house) => {
  const user = ["--auth-user", "alice", "--auth-password", PASSWORD];
  const envelope = ["--from", "alice@penncloud.test", "--to", "bob@penncloud.test"];
  const { submission, submissions } = house.ports;
  const first = await swaks(submission, "--tls", "--auth", "PLAIN", ...user, ...envelope);
  assert.equal(first.code, 0, first.text);
  const second = await swaks(
    submissions,
    "--tls-on-connect",
    "--auth",
    "LOGIN",
    ...user,
    ...envelope,
  );
  assert.equal(second.code, 0, second.text);
  assert.equal((await inboxOf(house, "bob")).length, 2);
  assert.equal((await folderEntries(house.mail, "alice", "Sent")).length, 2);
});

swaksTest(
  "submission refuses a password in the clear, a wrong one, and a borrowed address",
  async (house) => {
    const { submission } = house.ports, to = ["--to", "bob@penncloud.test"];
    const alice = ["--auth", "PLAIN", "--auth-user", "alice", "--auth-password"];
    const clear = await swaks(
      submission,
      ...alice,
      PASSWORD,
      "--from",
      "alice@penncloud.test",
      ...to,
    );
    assert.notEqual(clear.code, 0, clear.text);
    assert.doesNotMatch(clear.text, /250-AUTH/);
    const wrong = await swaks(
      submission,
      "--tls",
      ...alice,
      "wrong",
      "--from",
      "alice@penncloud.test",
      ...to,
    );
    assert.match(wrong.text, /535 5\.7\.8/);
    const borrowed = await swaks(
      submission,
      "--tls",
      ...alice,
      PASSWORD,
      "--from",
      "bob@penncloud.test",
      ...to,
    );
    assert.match(borrowed.text, /553 5\.7\.1 You can only send as alice@penncloud\.test/);
    const header = await swaks(
      submission,
      "--tls",
      ...alice,
      PASSWORD,
      "--from",
      "alice@penncloud.test",
      "--header",
      "From: Bob <bob@penncloud.test>",
      ...to,
    );
    assert.match(header.text, /553 5\.7\.1/);
    const nobody = await swaks(submission, "--tls", "--from", "alice@penncloud.test", ...to);
    assert.notEqual(nobody.code, 0);
    assert.equal((await inboxOf(house, "bob")).length, 0);
  },
);

swaksTest("guessing passwords over SMTP is slowed down", async (house) => {
  let limited = false;
  for (let attempt = 0; attempt < 40 && !limited; attempt++) {
    const { text } = await swaks(
      house.ports.submissions,
      "--tls-on-connect",
      "--auth",
      "PLAIN",
      "--auth-user",
      "alice",
      "--auth-password",
      `guess ${attempt}`,
      "--quit-after",
      "AUTH",
    );
    limited = /454 4\.7\.0/.test(text);
  }
  assert.ok(limited);
});

const hasMsmtp = await installed("msmtp");
Deno.test({
  name: hasMsmtp
    ? "msmtp sends a mail with Bcc, and nobody sees the Bcc line"
    : "msmtp sends a mail (skipped: msmtp is not installed)",
  ignore: !hasMsmtp,
  fn: () =>
    withHouse(async (house) => {
      const { code, text } = await runProgram(
        "msmtp",
        [
          "--host=127.0.0.1",
          `--port=${house.ports.submission}`,
          "--tls=on",
          "--tls-starttls=on",
          "--tls-certcheck=off",
          "--auth=plain",
          "--user=alice",
          `--passwordeval=printf '${PASSWORD}'`,
          "--from=alice@penncloud.test",
          "--read-recipients",
          "--remove-bcc-headers=off",
        ],
        "From: Alice <alice@penncloud.test>\nTo: bob@penncloud.test\nBcc: alice@penncloud.test\n" +
          "Subject: by msmtp\n\nhello\n",
      );
      assert.equal(code, 0, text);
      const [got] = await inboxOf(house, "bob");
      assert.equal(got?.entry.subject, "by msmtp");
      const { stream } = await house.mail.raw("bob", got!.entry.id);
      const raw = await new Response(ReadableStream.from(stream) as ReadableStream<Uint8Array>)
        .text();
      assert.doesNotMatch(raw, /^bcc/mi);
      assert.match(raw, /^Received: from .*\r\n\tby penncloud\.test/m);
      assert.match(raw, /^Message-ID: <.+>/mi);
      assert.equal((await inboxOf(house, "alice")).length, 1);
    }),
});

const clientFor = (port: number) =>
  nodemailer.createTransport({ host: "127.0.0.1", port, tls: { rejectUnauthorized: false } });

Deno.test("nodemailer delivers an attachment byte for byte; a message above the limit gets 552", () =>
  withHouse(async (house) => {
    const transport = clientFor(house.ports.smtp);
    const content = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31) >> 2);
    const message = { from: "c@else.example", to: "alice@penncloud.test", subject: "file" };
    await transport.sendMail({
      ...message,
      attachments: [{ filename: "ä.bin", content: content as Buffer }],
    });
    const [got] = await inboxOf(house, "alice");
    assert.equal(got?.entry.hasAttachments, true);
    const { stream, filename } = await house.mail.attachment("alice", got!.entry.id, 0);
    const parts: Uint8Array[] = [];
    for await (const part of stream) parts.push(part);
    assert.deepEqual(new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()), content);
    assert.equal(filename, "ä.bin");
    const large = { filename: "a", content: new Uint8Array(MESSAGE_BYTES_MAX) as Buffer };
    await assert.rejects(transport.sendMail({ ...message, attachments: [large] }), /552/);
    assert.equal((await inboxOf(house, "alice")).length, 1);
    transport.close();
  }));

Deno.test("two hundred messages at once over SMTP are all there", () =>
  withHouse(async (house) => {
    const transport = nodemailer.createTransport({
      pool: true,
      maxConnections: 20,
      host: "127.0.0.1",
      port: house.ports.smtp,
      tls: { rejectUnauthorized: false },
    });
    await Promise.all(Array.from({ length: 200 }, (_, index) =>
      transport.sendMail({
        from: "c@else.example",
        to: "alice@penncloud.test",
        subject: `number ${index}`,
        text: "x",
      })));
    transport.close();
    await house.mail.worker.idle();
    await house.mail.worker.sweep();
    const entries = await inboxOf(house, "alice");
    assert.equal(new Set(entries.map(({ entry }) => entry.subject)).size, 200);
    assert.deepEqual(
      entries.map(({ uid }) => uid).sort((a, b) => a - b),
      Array.from({ length: 200 }, (_, i) => i + 1),
    );
  }));

Deno.test("a store that is away means 451, a full disk 452, and nothing is lost or half done", () =>
  withHouse(async (house) => {
    const talk = [
      "EHLO x",
      "MAIL FROM:<c@else.example>",
      "RCPT TO:<alice@penncloud.test>",
      "DATA",
      "Subject: x\r\n\r\nhello\r\n.",
    ];
    house.failWith = new KvError("unavailable", "no primary");
    assert.match((await dialogue(house.ports.smtp, talk)).at(-1)!, /^451 4\.3\.0/);
    house.failWith = new KvError("disk_full", "no space left");
    assert.match((await dialogue(house.ports.smtp, talk)).at(-1)!, /^452 4\.3\.1/);
    house.failWith = null;
    assert.match((await dialogue(house.ports.smtp, talk)).at(-1)!, /^250/);
    assert.equal((await inboxOf(house, "alice")).length, 1);
  }));

Deno.test("a client that goes away in the middle of a message leaves nothing", () =>
  withHouse(async (house) => {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port: house.ports.smtp });
    const hear = async (wanted: RegExp) => {
      for (let heard = ""; !wanted.test(heard);) {
        const buffer = new Uint8Array(1000), length = await connection.read(buffer);
        assert.ok(length !== null, `closed after ${heard}`);
        heard += new TextDecoder().decode(buffer.subarray(0, length));
      }
    };
    await hear(/^220/m);
    await connection.write(
      encoder.encode(
        "EHLO x\r\nMAIL FROM:<c@else.example>\r\nRCPT TO:<alice@penncloud.test>\r\nDATA\r\n",
      ),
    );
    await hear(/^354/m);
    await connection.write(encoder.encode("Subject: half\r\n\r\nhalf a mess"));
    connection.close();
    // A whole message afterwards proves that the door is still open.
    await dialogue(house.ports.smtp, [
      "EHLO x",
      "MAIL FROM:<>",
      "RCPT TO:<alice@penncloud.test>",
      "DATA",
      "Subject: whole\r\n\r\nx\r\n.",
    ]);
    const entries = await inboxOf(house, "alice");
    assert.deepEqual(entries.map(({ entry }) => entry.subject), ["whole"]);
  }));

Deno.test("bad input at the SMTP door gets an error or a closed connection, and the next one is served", () =>
  withHouse(async (house) => {
    const { smtp } = house.ports;
    const start = ["EHLO x", "MAIL FROM:<c@else.example>"];
    const to = "RCPT TO:<alice@penncloud.test>";
    const last = async (lines: (string | Uint8Array)[]) => (await dialogue(smtp, lines)).at(-1)!;
    assert.match(await last(["GARBAGE"]), /^5\d\d/);
    assert.match(await last(["RCPT TO:<alice@penncloud.test>"]), /^5\d\d/);
    assert.match(await last([...start, "RCPT TO:<alice>"]), /^5\d\d/);
    assert.match(await last([...start, "RCPT TO:<ali\0ce@penncloud.test>"]), /^5\d\d/);
    assert.match(
      await last([...start, "RCPT TO:<@else.example:alice@penncloud.test>"]),
      /^[25]\d\d/,
    );
    assert.match(await last(["EHLO x", "MAIL FROM:<not an address>"]), /^5\d\d/);
    assert.match(await last(["EHLO x", "MAIL FROM:<c@else.example> SIZE=99999999999"]), /^552/);
    await dialogue(smtp, [crypto.getRandomValues(new Uint8Array(60_000))]);
    await dialogue(smtp, ["X".repeat(2_000_000)]);
    const hops = "Received: from a by b\r\n".repeat(RECEIVED_MAX + 1);
    assert.match(await last([...start, to, "DATA", `${hops}\r\nx\r\n.`]), /^554 5\.4\.6/);
    const header = `X: ${"y".repeat(900)}\r\n`.repeat(Math.ceil(HEADER_BYTES_MAX / 900));
    assert.match(await last([...start, to, "DATA", `${header}\r\nx\r\n.`]), /^552/);
    const garbage = new Uint8Array([
      ...crypto.getRandomValues(new Uint8Array(5000)),
      13,
      10,
      46,
      13,
      10,
    ]);
    assert.match(await last([...start, to, "DATA", garbage]), /^250|^5\d\d/);
    assert.match(await last([...start, to, "DATA", "Subject: a\0b\xff\r\n\r\n\0\r\n."]), /^250/);
    const entries = await inboxOf(house, "alice");
    for (const { entry } of entries) await house.mail.read("alice", entry.id);
    assert.ok(entries.some(({ entry }) => entry.subject.startsWith("a")));
  }));

/** Another mail server that keeps what it gets and refuses whoever is called "nobody". */
async function withSink(
  run: (
    sink: { port: number; got: { to: string[]; text: string }[]; down: boolean },
  ) => Promise<void>,
): Promise<void> {
  const got: { to: string[]; text: string }[] = [];
  const sink = { port: 0, got, down: false };
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ["AUTH"],
    key: tls.key,
    cert: tls.cert,
    logger: false,
    onMailFrom(_address, _session, callback) {
      callback(sink.down ? Object.assign(new Error("try later"), { responseCode: 421 }) : null);
    },
    onRcptTo({ address }, _session, callback) {
      const error = address.startsWith("nobody")
        ? Object.assign(new Error("no such user"), { responseCode: 550 })
        : null;
      callback(error);
    },
    onData(stream, session, callback) {
      const parts: Uint8Array[] = [];
      stream.on("data", (part: Uint8Array) => parts.push(part));
      stream.on("end", async () => {
        const text = await new Blob(parts as BlobPart[]).text();
        got.push({ to: session.envelope.rcptTo.map(({ address }) => address), text });
        callback(null);
      });
    },
  });
  server.on("error", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  sink.port =
    (server as unknown as { server: { address(): { port: number } } }).server.address().port;
  try {
    await run(sink);
  } finally {
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

Deno.test("mail to the outside goes through the relay, Bcc unseen; a refusal comes back as a bounce", () =>
  withSink((sink) =>
    withHouse(async (house) => {
      const { id } = await house.mail.send("alice", {
        to: "x@else.example, nobody@else.example",
        bcc: "secret@third.example",
        subject: "out",
        text: "to the world\n.and a dot",
      });
      await house.mail.worker.idle();
      await eventually(
        async () => (await house.mail.report("alice", id))!.every((r) => r.status !== "queued"),
        "the outbox to be empty",
      );
      assert.deepEqual(sink.got.flatMap(({ to }) => to).sort(), [
        "secret@third.example",
        "x@else.example",
      ]);
      for (const { text } of sink.got) {
        assert.match(text, /^Subject: out\r$/m);
        assert.match(text, /\r\n\.and a dot/);
        assert.doesNotMatch(text, /secret@|^bcc/mi);
      }
      const report = await house.mail.report("alice", id);
      assert.deepEqual(report?.map(({ address, status }) => [address, status]), [
        ["x@else.example", "delivered"],
        ["nobody@else.example", "failed"],
        ["secret@third.example", "delivered"],
      ]);
      const [bounce] = await inboxOf(house, "alice");
      const { content } = await house.mail.read("alice", bounce!.entry.id);
      assert.match(content.text, /could not be delivered to nobody@else\.example/);
      assert.match(content.text, /answered: 550 no such user/);
    }, { mail: { relay: `smtp://127.0.0.1:${sink.port}` } })
  ));

Deno.test("without a relay the servers of the recipient's domain are looked up and tried in order", () =>
  withSink((sink) =>
    withHouse(async (house) => {
      const { id } = await house.mail.send("alice", { to: "x@else.example", text: "by MX" });
      const gone = await house.mail.send("alice", { to: "x@nowhere.example", text: "by MX" });
      await house.mail.worker.idle();
      assert.equal((await house.mail.report("alice", id))?.[0]?.status, "delivered");
      assert.equal(sink.got.length, 1);
      const failed = (await house.mail.report("alice", gone.id))?.[0];
      assert.equal(failed?.status, "failed");
      assert.match(failed?.detail ?? "", /no mail server could be found for nowhere\.example/);
    }, {
      mx: {
        port: sink.port,
        resolveRecords: (domain, type) => {
          if (type === "MX" && domain === "else.example") {
            return Promise.resolve([
              { priority: 10, exchange: "dead.else.example" },
              { priority: 20, exchange: "mx.else.example" },
            ]);
          }
          if (type === "A" && domain === "dead.else.example") return Promise.resolve(["127.0.0.2"]);
          if (type === "A" && domain === "mx.else.example") return Promise.resolve(["127.0.0.1"]);
          return Promise.reject(Object.assign(new Error("no such name"), { code: "ENOTFOUND" }));
        },
      },
    })
  ));

Deno.test("a server that is away is a delay and no bounce", () =>
  withSink((sink) =>
    withHouse(async (house) => {
      sink.down = true;
      const { id } = await house.mail.send("alice", { to: "x@else.example", text: "x" });
      await house.mail.worker.idle();
      const report = (await house.mail.report("alice", id))?.[0];
      assert.equal(report?.status, "delayed");
      assert.match(report?.detail ?? "", /try later/);
      assert.equal((await inboxOf(house, "alice")).length, 0);
    }, { mail: { relay: `smtp://127.0.0.1:${sink.port}` } })
  ));

Deno.test("openSmtpDoors() reports a port that is taken and leaves none open", async () => {
  const blocker = createServer();
  await new Promise<void>((resolve) => blocker.listen(0, "127.0.0.1", resolve));
  const { port } = blocker.address() as { port: number };
  const kv = new MemoryKv(), env = realEnv({ node: "mail/0" }), config = mailConfig();
  const mail = new Mail({ kv, env, config, users: { find: () => Promise.resolve(null) } });
  await assert.rejects(openSmtpDoors({
    mail,
    accounts: { verifyPassword: () => Promise.reject(new Error("none")) },
    env,
    host: "127.0.0.1",
    ports: { smtp: 0, submission: port, submissions: 0 },
    tls,
    messageBytesMax: 1,
    recipientsMax: 1,
  }));
  await new Promise<void>((resolve) => blocker.close(() => resolve()));
});
