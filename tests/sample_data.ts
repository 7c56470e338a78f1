/**
 * A small world to look at: users with mail and files, as the screens and the browser tests want it.
 * Made through the apps themselves, so it is what real use would have left behind.
 */
import type { FullContext } from "../web/context.ts";

export const SAMPLE_PASSWORD = "correct horse battery";
const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

/** Lets the sample lie in the past: the clock of the context runs this much late meanwhile. */
export interface MovableClock {
  behindMs: number;
}

const PEOPLE = ["alice", "bob", "grace.hopper", "ada.lovelace", "linus", "margaret", "zoe"];

const LETTERS: readonly { from: string; agoMs: number; subject: string; text: string }[] = [
  {
    from: "margaret",
    agoMs: 9 * DAY,
    subject: "Minutes of the garden committee",
    text: "Dear all,\n\nplease find the minutes below. We agreed on two more apple trees and on " +
      "repairing the shed before the frost.\n\n1. Apple trees: Zoe orders them.\n2. Shed: Bob and " +
      "Linus, second weekend of the month.\n3. Money: 214.50 in the box.\n\nMargaret",
  },
  {
    from: "linus",
    agoMs: 6 * DAY,
    subject: "Re: Backup of the old laptop",
    text:
      "I copied everything to the drive, 41 GB. The photos from 2009 are in there too.\n\n> Did " +
      "you get around to the laptop?\n> There must be photos from the lake on it.\n",
  },
  {
    from: "grace.hopper",
    agoMs: 3 * DAY,
    subject: "Compiler talk on Thursday",
    text:
      "Hello Alice,\n\nthe talk is at 18:30 in the small hall. Could you bring the adapter for the " +
      "projector? The slides are in the shared folder.\n\nThanks,\nGrace",
  },
  {
    from: "zoe",
    agoMs: 27 * HOUR,
    subject: "Photos from the lake",
    text: "Look what I found! I put the best ones into the drive. The one with the heron is my " +
      "favourite.\n\nzoe",
  },
  {
    from: "bob",
    agoMs: 5 * HOUR,
    subject: "Dinner on Saturday?",
    text:
      "Hi Alice,\n\nwe thought of seven o'clock at ours. Bring nothing but appetite. If the weather " +
      "holds we sit outside.\n\nBob",
  },
  {
    from: "ada.lovelace",
    agoMs: 2 * HOUR,
    subject: "Notes on the engine, second draft",
    text:
      "Dear Alice,\n\nthe second draft is ready for your eyes. I have rewritten note G from the " +
      "beginning; the table now shows every step of the calculation, and I believe that the " +
      "recurrence is right at last.\n\nYours,\nAda",
  },
  {
    from: "grace.hopper",
    agoMs: 24 * MINUTE,
    subject: "Re: Compiler talk on Thursday",
    text: "Perfect, thank you!\n\n> I have the adapter and will be there at six.\n",
  },
];

/** Fills a fresh store. Takes a few seconds, most of them for hashing passwords. */
export async function makeSampleData(context: FullContext, clock: MovableClock): Promise<void> {
  const { accounts } = context;
  clock.behindMs = 40 * DAY;
  await accounts.create({
    username: "admin",
    password: SAMPLE_PASSWORD,
    admin: true,
    operator: true,
  });
  for (const username of PEOPLE) await accounts.create({ username, password: SAMPLE_PASSWORD });
  await sendLetters(context, clock);
  await fillDrive(context, clock);
  clock.behindMs = 0;
}

async function sendLetters({ mail }: FullContext, clock: MovableClock): Promise<void> {
  for (const { from, agoMs, subject, text } of LETTERS) {
    clock.behindMs = agoMs;
    const to = [`alice@${mail.mailDomain}`], cc = [`bob@${mail.mailDomain}`];
    await mail.send(from, { to, ...(from === "margaret" ? { cc } : {}), subject, text });
    await mail.worker.idle();
  }
  clock.behindMs = HOUR;
  await mail.send("alice", {
    to: [`ada.lovelace@${mail.mailDomain}`],
    subject: "Re: Notes on the engine, second draft",
    text: "Dear Ada,\n\nI read it tonight and write to you tomorrow.\n\nAlice",
  });
  await mail.worker.idle();
}

async function fillDrive({ drive }: FullContext, clock: MovableClock): Promise<void> {
  const user = "alice";
  const put = async (parent: string, name: string, content: string | Uint8Array) => {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    const body = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream();
    const request = { parent, name, conflict: "fail" } as const;
    await drive.upload(user, request, { size: bytes.length, body });
  };
  clock.behindMs = 20 * DAY;
  const photos = await drive.createFolder(user, { parent: "root", name: "Photos" });
  const music = await drive.createFolder(user, { parent: "root", name: "Music" });
  const papers = await drive.createFolder(user, { parent: "root", name: "Papers" });
  const lake = await drive.createFolder(user, { parent: photos.id, name: "At the lake" });
  clock.behindMs = 12 * DAY;
  for (const [index, hue] of [18, 96, 172, 205, 268, 330].entries()) {
    await put(lake.id, `lake-${index + 1}.svg`, landscape(hue));
  }
  await put(photos.id, "Heron.svg", landscape(150));
  await put(music.id, "Three notes.wav", tone([440, 554.37, 659.25]));
  await put(music.id, "Low tide.wav", tone([196, 246.94, 293.66, 246.94]));
  clock.behindMs = 2 * DAY;
  await put(
    papers.id,
    "Notes on the engine.md",
    "# Notes on the engine\n\nNote G, second draft.\n",
  );
  await put(papers.id, "Budget.csv", "what,amount\napple trees,96.00\nshed,118.50\n");
  clock.behindMs = 3 * HOUR;
  await put("root", "Shopping list.txt", "bread\nplums\nprojector adapter\n");
  await put("root", "sieve.ts", SIEVE);
  await put("root", "Sunset.svg", landscape(24));
}

const SIEVE = `/** The primes below \`limit\`, by the sieve of Eratosthenes. */
export function primes(limit: number): number[] {
  const composite = new Uint8Array(limit);
  const found: number[] = [];
  for (let n = 2; n < limit; n++) {
    if (composite[n]) continue;
    found.push(n);
    for (let m = n * n; m < limit; m += n) composite[m] = 1;
  }
  return found;
}
`;

/** Hills in one hue under a low sun. */
function landscape(hue: number): string {
  const hills = [0, 1, 2, 3].map((layer) => {
    const y = 300 + layer * 70, light = 62 - layer * 13;
    return `<path fill="hsl(${hue} 38% ${light}%)" d="M0 ${y}Q160 ${y - 110 + layer * 22} 360 ` +
      `${y - 20}T800 ${y - 50}V600H0Z"/>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 600" width="800" height="600">` +
    `<rect width="800" height="600" fill="hsl(${hue} 55% 86%)"/>` +
    `<circle cx="560" cy="210" r="64" fill="hsl(${(hue + 30) % 360} 90% 76%)"/>${
      hills.join("")
    }</svg>`;
}

/** A few seconds of sine tones as a WAV file. */
function tone(frequencies: readonly number[]): Uint8Array {
  const rate = 8000, each = rate, samples = each * frequencies.length;
  const bytes = new Uint8Array(44 + samples * 2), view = new DataView(bytes.buffer);
  const text = (at: number, chars: string) => bytes.set(new TextEncoder().encode(chars), at);
  text(0, "RIFF");
  view.setUint32(4, 36 + samples * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples * 2, true);
  for (let i = 0; i < samples; i++) {
    const frequency = frequencies[Math.floor(i / each)]!, fade = 1 - (i % each) / each;
    view.setInt16(44 + i * 2, Math.sin(2 * Math.PI * frequency * i / rate) * fade * 12000, true);
  }
  return bytes;
}
