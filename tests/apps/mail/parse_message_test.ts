/** Mail from strangers: bad MIME, bad headers, bad HTML. Nothing throws, nothing dangerous gets out. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { normalizeAddress, parseRecipients } from "../../../apps/mail/addresses.ts";
import {
  HEADER_BYTES_MAX,
  joinHeader,
  RECEIVED_MAX,
  splitHeader,
} from "../../../apps/mail/header_block.ts";
import { MailError } from "../../../apps/mail/mail_error.ts";
import { readAttachment, readMessage, summarize } from "../../../apps/mail/parse_message.ts";
import { ParseSlots } from "../../../apps/mail/parse_slots.ts";
import { htmlToText, safeHtml } from "../../../apps/mail/safe_html.ts";
import { bytesOf, folderEntries, makeWorld } from "./mail_world.ts";

const bytes = (latin1: string) => Uint8Array.from(latin1, (char) => char.charCodeAt(0));
const NOW_MS = Date.UTC(2025, 5, 1);

const STRANGE: Record<string, string> = {
  "nothing at all": "",
  "no header": "\r\n\r\njust text",
  "no empty line": "Subject: alone",
  "8-bit garbage": "Subject: \xff\xfe\x80\r\nFrom: \xe9\xe8@x\r\n\r\n\xff\x00\x80\xc3\x28",
  "NUL bytes": "Subject: a\0b\r\nFrom: a\0@b.example\r\n\r\nx\0y",
  "truncated multipart":
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhel',
  "wrong base64":
    "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n@@@@not!base64=====\r\n",
  "wrong quoted-printable": "Content-Transfer-Encoding: quoted-printable\r\n\r\n=ZZ=4=\r\n=",
  "unknown charset": "Content-Type: text/plain; charset=klingon-8\r\n\r\nnuqneH",
  "encoded word without end": "Subject: =?utf-8?b?4pyT\r\n\r\nx",
  "date far ahead": "Date: Fri, 31 Dec 9999 23:59:59 +0000\r\n\r\nx",
  "date of nonsense": "Date: yesterday-ish\r\n\r\nx",
  "nested 500 deep": Array.from(
    { length: 500 },
    (_, i) => `Content-Type: multipart/mixed; boundary="b${i}"\r\n\r\n--b${i}\r\n`,
  ).join("") + "\r\nx",
  "file name that climbs":
    'Content-Disposition: attachment; filename="../../etc/passwd"\r\nContent-Type: a/b\r\n\r\nx',
};

for (const [name, text] of Object.entries(STRANGE)) {
  Deno.test(`a strange message is summarized and read: ${name}`, async () => {
    const summary = await summarize(bytes(text), NOW_MS);
    assert.ok(summary.dateMs <= NOW_MS + 24 * 3_600_000 && summary.dateMs > 0);
    // deno-lint-ignore no-control-regex -- none of them may reach a list
    assert.doesNotMatch(summary.subject + summary.snippet, /[\u0000-\u001f]/);
    const message = await readMessage(bytes(text));
    for (const { n, filename } of message.attachments) {
      assert.doesNotMatch(filename, /[/\\]|^\.\.?$/);
      assert.ok(await readAttachment(bytes(text), n) !== null);
    }
  });
}

Deno.test("any bytes at all can be summarized and read", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), async (garbage) => {
      await summarize(garbage, NOW_MS);
      await readMessage(garbage);
    }),
    { numRuns: 200 },
  );
});

Deno.test("joinHeader() gives back what splitHeader() took apart, however the bytes come", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom("A: b\r\n", "Long: x\r\n\tfolded\r\n", "Odd\r\n", "é: \x80\r\n")),
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 1, max: 40 }),
      async (fields, body, step) => {
        const whole = new Uint8Array([...bytes(fields.join("") + "\r\n"), ...body]);
        const pieces = Array.from(
          { length: Math.ceil(whole.length / step) },
          (_, i) => whole.subarray(i * step, (i + 1) * step),
        );
        const split = await splitHeader(pieces);
        assert.deepEqual(split.fields.map(({ raw }) => raw), fields);
        const again = await bytesOf(joinHeader(split.fields.map(({ raw }) => raw), split.rest));
        assert.deepEqual(again, whole);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("a header without end and a message in circles are refused", async () => {
  const { mail } = makeWorld(["ann"]);
  const receive = (text: string) =>
    mail.smtp.receive({
      envelopeFrom: "x@y.example",
      recipients: ["ann@penncloud.test"],
      source: [bytes(text)],
      trace: "Received: from test",
    });
  const code = (wanted: string) => (error: unknown) =>
    error instanceof MailError && error.code === wanted;
  await assert.rejects(receive("X: " + "y".repeat(HEADER_BYTES_MAX)), code("header_too_large"));
  const hops = "Received: from a by b\r\n".repeat(RECEIVED_MAX + 1);
  await assert.rejects(receive(`${hops}\r\nx`), code("mail_loop"));
  await receive(`${"Received: from a by b\r\n".repeat(5)}\r\nx`);
  await mail.worker.idle();
  assert.equal((await folderEntries(mail, "ann")).length, 1);
});

Deno.test("parseRecipients() reads what people write", () => {
  const parsed = parseRecipients([
    '"Doe, Jo" <jo@x.example>, kim@y.example',
    { name: "Zoë", address: "Zoe@Z.Example" },
    "",
  ]);
  assert.deepEqual(parsed, [
    { name: "Doe, Jo", address: "jo@x.example" },
    { name: "", address: "kim@y.example" },
    { name: "Zoë", address: "Zoe@z.example" },
  ]);
});

Deno.test("normalizeAddress() takes no line breaks, no literals, no nonsense", () => {
  for (
    const bad of [
      "",
      "a",
      "a@",
      "@b.example",
      "a@b",
      "a@b..example",
      "a@-b.example",
      "a b@c.example",
      "a@b.example\nX: y",
      "a@[127.0.0.1]",
      "a@127.0.0.1",
      "ä@b.example",
      "a..b@c.example",
      `${"a".repeat(65)}@b.example`,
      "a\0@b.example",
      "a@b.example>",
      "a@b/c.example",
    ]
  ) assert.equal(normalizeAddress(bad), null, JSON.stringify(bad));
  assert.equal(normalizeAddress(" o'neil+x@Bücher.example "), "o'neil+x@xn--bcher-kva.example");
});

const ATTACKS = [
  "<script>alert(1)</script>",
  "<scr<script>ipt>alert(1)</scr</script>ipt>",
  "<img src=x onerror=alert(1)>",
  "<svg/onload=alert(1)><script>alert(1)</script></svg>",
  '<a href="javascript:alert(1)">x</a>',
  '<a href=" java\nscript:alert(1)">x</a>',
  '<a href="data:text/html,<script>alert(1)</script>">x</a>',
  '<iframe src="https://evil.example"></iframe>',
  '<form action="https://evil.example"><input name=password></form>',
  "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
  '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
  '<style>@import "https://evil.example/x.css"</style>',
  '<p style="background:url(https://evil.example/x)">x</p>',
  '<p style="background-color: red; position: fixed; width: expression(alert(1))">x</p>',
  '<p title="&quot; onmouseover=&quot;alert(1)">x</p>',
  '<meta http-equiv=refresh content="0;url=https://evil.example"><base href="//evil.example">',
  '<object data="x"></object><embed src="x"><link rel=stylesheet href="//evil.example">',
  "<textarea></textarea><img src=x onerror=alert(1)>",
  "<!--><img src=x onerror=alert(1)>-->",
  "<![CDATA[<img src=x onerror=alert(1)>]]>",
  "<a\0 href=x onclick=alert(1)>x",
  '<video><source onerror="alert(1)"></video><audio src=x onerror=alert(1)>',
];

/** Tags of our own output, whose form we know: anything else in angle brackets would be an escape. */
const OUTPUT = /^(?:[^<>]|<\/[a-z0-9]+>|<[a-z0-9]+(?: [a-z-]+="[^"<>]*")*>)*$/;

for (const attack of ATTACKS) {
  Deno.test(`safeHtml() makes harmless: ${JSON.stringify(attack).slice(0, 70)}`, () => {
    const { html } = safeHtml(attack);
    assert.match(html, OUTPUT);
    const tags = html.match(/<[^>]*>/g)?.join("") ?? "";
    const names = tags.replaceAll(/"[^"]*"/g, '""');
    assert.doesNotMatch(names, / on\w+=|<script|<svg|<style|<iframe/i);
    assert.doesNotMatch(tags, /javascript:|url\(|expression/i);
    assert.doesNotMatch(tags, /<(form|input|meta|base|link|object|embed|math|noscript|video)/i);
    assert.doesNotMatch(tags, / (?:src|href)="(?!https?:|mailto:)[^"]*"/);
  });
}

Deno.test("safeHtml() output is always well formed and free of scripts, whatever goes in", () => {
  const piece = fc.oneof(
    fc.constantFrom(...ATTACKS, "<b>", "</b>", "<p ", "<", ">", '"', "'", "&lt;", "<!--", "-->"),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const { html } = safeHtml(pieces.join(""));
      assert.match(html, OUTPUT);
      const names = (html.match(/<[^>]*>/g)?.join("") ?? "").replaceAll(/"[^"]*"/g, '""');
      assert.doesNotMatch(names, / on\w+=|<script|<style/i);
      assert.match(safeHtml(html).html, OUTPUT);
    }),
    { numRuns: 500 },
  );
});

Deno.test("remote pictures stay out until they are asked for; those in the mail are shown", async () => {
  const source = '<p>Hi <img src="https://track.example/x.gif?u=1" alt="logo"></p>';
  const hidden = safeHtml(source);
  assert.equal(hidden.remoteImageCount, 1);
  assert.doesNotMatch(hidden.html, / src=/);
  assert.match(safeHtml(source, { remoteImages: true }).html, / src="https:\/\/track\.example/);
  const mime = [
    'Content-Type: multipart/related; boundary="b"',
    "",
    "--b",
    "Content-Type: text/html",
    "",
    '<img src="cid:pic@x">',
    "--b",
    "Content-Type: image/png",
    "Content-ID: <pic@x>",
    "Content-Transfer-Encoding: base64",
    "",
    "aGVsbG8=",
    "--b--",
    "",
  ].join("\r\n");
  const message = await readMessage(bytes(mime));
  assert.match(message.html, /src="data:image\/png;base64,aGVsbG8="/);
  assert.equal(message.attachments[0]?.inline, true);
});

Deno.test("ParseSlots.run() lets small messages pass and takes large ones two at a time", async () => {
  const slots = new ParseSlots();
  let now = 0, most = 0;
  const work = async () => {
    most = Math.max(most, ++now);
    await new Promise((resolve) => setTimeout(resolve, 1));
    now--;
  };
  await Promise.all(Array.from({ length: 9 }, () => slots.run(5_000_000, work)));
  assert.equal(most, 2);
  await assert.rejects(slots.run(5_000_000, () => Promise.reject(new Error("broken"))));
  await Promise.all(Array.from({ length: 9 }, () => slots.run(100, work)));
  assert.equal(most, 9);
});

Deno.test("htmlToText() gives readable lines", () => {
  const html = "<style>p{}</style><p>Dear&nbsp;Ann,</p><ul><li>one</li><li>two</li></ul>bye<br>Bob";
  assert.equal(htmlToText(html).replaceAll("\u00a0", " "), "Dear Ann,\n\none\n\ntwo\n\nbye\nBob");
});
