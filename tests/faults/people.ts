/**
 * People at a frontend: they write to each other, put files into folders, and move files and folders
 * about, several at once. In the end every accepted mail is with every recipient once, every stored
 * file is there with its bytes, and each drive is still a tree.
 *
 * A frontend may answer 503 or go away in the middle of a request; what was then asked for may have
 * happened, once, or not.
 */
import { createHash } from "node:crypto";
import { type Answer, PASSWORD, randomBytes, Visitor } from "../cluster/visitor.ts";
import { checkTree, type TreeLink } from "../checkers/tree.ts";
import { eventually } from "../eventually.ts";
import { breathe, some, type Workload, type WorkloadContext } from "./workload.ts";

/** One in each of three groups. */
const NAMES = ["ada", "mia", "zoe"];
const BREATH_MS = 400;
const FOLDER_COUNT = 4;
const FILE_BYTES_MAX = 200_000;
const DELIVERED_WITHIN_MS = 120_000;
const PATIENCE_MS = 120_000;

interface Person {
  readonly visitor: Visitor;
  readonly folders: string[];
  /** By id; where it lies is known only until a move of unknown end. */
  readonly files: Map<string, { readonly digest: string; parent: string | null }>;
}

interface Mail {
  readonly subject: string;
  readonly to: readonly string[];
}

export class People implements Workload {
  readonly name = "people";
  readonly #context: WorkloadContext;
  readonly #accepted: Mail[] = [];
  readonly #unknownSubjects = new Set<string>();
  readonly #people: Person[] = [];
  #count = 0;

  constructor(context: WorkloadContext) {
    this.#context = context;
  }

  async prepare(): Promise<void> {
    for (const name of NAMES) this.#people.push(await this.#enter(name));
  }

  async run(stop: AbortSignal): Promise<void> {
    const { random } = this.#context;
    const lanes = this.#people.flatMap((person) => [
      () => this.#write(person),
      () => this.#store(person),
      () => this.#move(person),
      () => this.#move(person),
    ]);
    await Promise.all(lanes.map(async (step) => {
      while (!stop.aborted) {
        await step();
        await breathe(BREATH_MS, { random, stop });
      }
    }));
  }

  async check(): Promise<string[]> {
    const problems: string[] = [];
    for (const person of this.#people) {
      problems.push(...await this.#checkInbox(person), ...await checkDrive(person));
    }
    return problems;
  }

  describe(): string {
    const files = this.#people.reduce((sum, { files }) => sum + files.size, 0);
    return `${this.#accepted.length} mails, ${files} files`;
  }

  /** A new account with a few folders. */
  async #enter(name: string): Promise<Person> {
    const visitor = new Visitor(this.#context.door, name);
    const json = { username: name, password: PASSWORD };
    await patiently(() => visitor.request("/api/v1/accounts", { method: "POST", json }), 201);
    const folders: string[] = [];
    while (folders.length < FOLDER_COUNT) {
      const made = await patiently(() => {
        const json = { parent: "root", name: `folder ${++this.#count}` };
        return visitor.request("/api/v1/drive/folders", { method: "POST", json });
      }, 201);
      folders.push(made.json.id);
    }
    return { visitor, folders, files: new Map() };
  }

  async #write({ visitor }: Person): Promise<void> {
    const { random } = this.#context, subject = `mail ${++this.#count}`;
    const to = random.chance(0.3) ? NAMES : [random.pick(NAMES)];
    const answer = await ask(() => visitor.send(to, subject));
    if (answer?.status === 202) this.#accepted.push({ subject, to });
    else this.#unknownSubjects.add(subject);
  }

  async #store({ visitor, folders, files }: Person): Promise<void> {
    const { random } = this.#context, parent = random.pick(folders);
    const bytes = randomBytes(random.integer(FILE_BYTES_MAX));
    const query = `parent=${parent}&name=${encodeURIComponent(`file ${++this.#count}`)}`;
    const answer = await ask(() =>
      visitor.request(`/api/v1/drive/files?${query}`, { method: "PUT", body: bytes })
    );
    if (answer?.status === 201) files.set(answer.json.id, { digest: digestOf(bytes), parent });
  }

  /** Moves a file, or a folder: two lanes at once must not put two folders into each other. */
  async #move({ visitor, folders, files }: Person): Promise<void> {
    const { random } = this.#context, parent = random.pick([...folders, "root"]);
    const moved = random.chance(0.5) || files.size === 0
      ? random.pick(folders)
      : random.pick([...files.keys()]);
    const answer = await ask(() =>
      visitor.request(`/api/v1/drive/items/${moved}`, { method: "PATCH", json: { parent } })
    );
    const file = files.get(moved);
    // Two moves of one file at once end in either order.
    if (file !== undefined) file.parent = answer?.status === 409 ? file.parent : null;
  }

  async #checkInbox({ visitor }: Person): Promise<string[]> {
    const { username } = visitor;
    const due = this.#accepted.filter(({ to }) => to.includes(username))
      .map(({ subject }) => subject);
    let subjects: readonly string[] = [];
    const missing = () => due.filter((subject) => !subjects.includes(subject));
    const untilMs = performance.now() + DELIVERED_WITHIN_MS;
    do {
      subjects = await subjectsOf(visitor);
    } while (missing().length > 0 && performance.now() < untilMs);
    const problems: string[] = [];
    if (missing().length > 0) {
      problems.push(`accepted mail never reached ${username}: ${some(missing())}`);
    }
    const doubled = subjects.filter((subject, i) => subjects.indexOf(subject) !== i);
    if (doubled.length > 0) problems.push(`${username} has mail twice: ${some(doubled)}`);
    const invented = subjects.filter((subject) =>
      !due.includes(subject) && !this.#unknownSubjects.has(subject)
    );
    if (invented.length > 0) problems.push(`${username} has mail of nobody: ${some(invented)}`);
    return problems;
  }
}

async function checkDrive({ visitor, files, folders }: Person): Promise<string[]> {
  const links: TreeLink[] = [], waiting = ["root"];
  // Folders that are reached twice would be read for ever.
  for (const seen = new Set<string>(); waiting.length > 0;) {
    const parent = waiting.pop()!;
    if (seen.has(parent)) continue;
    seen.add(parent);
    for (let next: string | null = ""; next !== null;) {
      const query: string = next === "" ? "" : `&cursor=${encodeURIComponent(next)}`;
      const path: string = `/api/v1/drive/items/${parent}?limit=500${query}`;
      const { json } = await patiently(() => visitor.request(path), 200);
      for (const { id, name, type } of json.children) {
        const kind = type === "folder" ? "folder" : "file";
        links.push({ parent, id, name, kind });
        if (kind === "folder") waiting.push(id);
      }
      next = json.next;
    }
  }
  const expected = [
    ...folders.map((id) => ({ id })),
    ...[...files].map(([id, { parent }]) => parent === null ? { id } : { id, parent }),
  ];
  const problems = [...checkTree({ root: "root", links, expected }).problems];
  for (const [id, { digest }] of files) {
    const path = `/api/v1/drive/items/${id}/content`;
    const { status, bytes } = await patiently(() => visitor.request(path), 200, 404);
    if (status === 200 && digestOf(bytes) === digest) continue;
    problems.push(`file ${id} does not have its bytes (status ${status})`);
  }
  return problems.map((problem) => `${visitor.username}: ${problem}`);
}

/** All subjects in the inbox; the pages may be asked for again and again. */
async function subjectsOf(visitor: Visitor): Promise<string[]> {
  const subjects: string[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    const query: string = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const path: string = `/api/v1/mail/messages?folder=INBOX&limit=100${query}`;
    const { json } = await patiently(() => visitor.request(path), 200);
    subjects.push(...json.messages.map(({ subject }: { subject: string }) => subject));
    cursor = json.next;
  }
  return subjects;
}

/** Asks until the answer is one of these; for what may be asked twice. */
async function patiently(
  request: () => Promise<Answer>,
  ...wanted: readonly number[]
): Promise<Answer> {
  let answer: Answer | null = null;
  await eventually(
    async () => {
      answer = await ask(request);
      return answer !== null && wanted.includes(answer.status);
    },
    "",
    { withinMs: PATIENCE_MS, everyMs: 200 },
  ).catch((cause) => {
    const said = answer === null ? "nothing" : `${answer.status} ${answer.text}`;
    throw new Error(`The frontend said ${said} for ${PATIENCE_MS} ms`, { cause });
  });
  return answer!;
}

/** Null when there was no answer, as from a frontend that was killed. Answers themselves are checked. */
async function ask(request: () => Promise<Answer>): Promise<Answer | null> {
  try {
    return await request();
  } catch (error) {
    const gone = error instanceof TypeError || error instanceof DOMException ||
      error instanceof SyntaxError;
    if (gone) return null;
    throw error;
  }
}

const digestOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
