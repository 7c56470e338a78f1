/**
 * SMTP word by word: a client that can also say what no mail program would. It sends what it is told
 * and reads replies; nothing is retried or put right.
 */

const REPLY_MS = 60_000;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class SmtpTalk implements Disposable {
  readonly #conn: Deno.Conn;
  #received = "";
  #ended = false;

  private constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  /** Connects and reads the greeting. */
  static async open(port: number): Promise<SmtpTalk> {
    const talk = new SmtpTalk(await Deno.connect({ hostname: "127.0.0.1", port }));
    const greeting = await talk.reply();
    if (!greeting.startsWith("220")) throw new Error(`No greeting but "${greeting}"`);
    return talk;
  }

  async write(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? encoder.encode(data) : data;
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
  }

  /** Sends one line and gives the reply's last line, such as "250 2.1.0 Accepted". */
  async say(line: string): Promise<string> {
    await this.write(line + "\r\n");
    return await this.reply();
  }

  /** The last line of the next reply; "" when the other side has hung up. */
  async reply(): Promise<string> {
    for (;;) {
      const lines = this.#received.split("\r\n");
      const last = lines.slice(0, -1).findIndex((line) => /^\d{3}( |$)/.test(line));
      if (last >= 0) {
        this.#received = lines.slice(last + 1).join("\r\n");
        return lines[last]!;
      }
      if (this.#ended) return "";
      await this.#read();
    }
  }

  /** Reads until the other side hangs up; gives everything it still said. */
  async untilHangup(): Promise<string> {
    while (!this.#ended) await this.#read();
    return this.#received;
  }

  async #read(): Promise<void> {
    const bytes = new Uint8Array(16 * 1024);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("No SMTP reply in time")), REPLY_MS);
    });
    try {
      const count = await Promise.race([this.#conn.read(bytes), late]);
      if (count === null) this.#ended = true;
      else this.#received += decoder.decode(bytes.subarray(0, count), { stream: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.ConnectionReset)) throw error;
      this.#ended = true;
    } finally {
      clearTimeout(timer);
    }
  }

  /** One whole message by the book; gives the last reply. */
  async deliver(
    envelope: { readonly from: string; readonly to: readonly string[] },
    message: string,
  ): Promise<string> {
    await this.say("EHLO sender.example");
    const from = await this.say(`MAIL FROM:<${envelope.from}>`);
    if (!from.startsWith("250")) return from;
    for (const to of envelope.to) {
      const answer = await this.say(`RCPT TO:<${to}>`);
      if (!answer.startsWith("250")) return answer;
    }
    const data = await this.say("DATA");
    if (!data.startsWith("354")) return data;
    return await this.say(message + "\r\n.");
  }

  close(): void {
    try {
      this.#conn.close();
    } catch {
      // Closed already.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Connects, delivers one message to one user of ours, and hangs up. */
export async function deliverOne(
  port: number,
  to: string,
  subject: string,
): Promise<string> {
  using talk = await SmtpTalk.open(port);
  const message = [
    "From: Ann <ann@example.org>",
    `To: <${to}@penncloud.test>`,
    `Subject: ${subject}`,
    `Message-ID: <${crypto.randomUUID()}@example.org>`,
    "",
    "Greetings from outside.",
  ].join("\r\n");
  const envelope = { from: "ann@example.org", to: [`${to}@penncloud.test`] };
  return await talk.deliver(envelope, message);
}
