/** People one wrote to or heard from, for completing addresses as they are typed. */
import { signal } from "@preact/signals";
import { getPage, type Person } from "./mail_api.ts";
import { personText } from "./quote.ts";

interface Contact {
  readonly text: string;
  readonly words: string;
  readonly weight: number;
}

const LOOKED_AT = 100;
const SHOWN_MAX = 6;

const contacts = signal<readonly Contact[]>([]);
let loading: Promise<void> | null = null;

/** Loads them once; without them, addresses can still be typed. */
export function loadContacts(): Promise<void> {
  return loading ??= load().catch(() => {
    loading = null;
  });
}

async function load(): Promise<void> {
  const found = new Map<string, { person: Person; weight: number }>();
  const add = (person: Person | null, weight: number) => {
    if (person === null || !person.address.includes("@")) return;
    const key = person.address.toLowerCase(), known = found.get(key);
    const better = known === undefined || known.person.name === "" ? person : known.person;
    found.set(key, { person: better, weight: (known?.weight ?? 0) + weight });
  };
  const [sent, inbox] = await Promise.all(
    ["sent", "inbox"].map((folder) => getPage({ kind: "folder", folder }, { limit: LOOKED_AT })),
  );
  for (const { to, cc, bcc = [] } of sent!.messages) {
    for (const person of [...to, ...cc, ...bcc]) add(person, 3);
  }
  for (const { from } of inbox!.messages) add(from, 1);
  contacts.value = [...found.values()].toSorted((a, b) => b.weight - a.weight)
    .map(({ person, weight }) => ({
      text: personText(person),
      words: `${person.name} ${person.address}`.toLowerCase(),
      weight,
    }));
}

/** Those with a word that begins with what was typed, best first. */
export function suggest(typed: string, taken: readonly string[]): string[] {
  const wanted = typed.trim().toLowerCase();
  if (wanted === "") return [];
  return contacts.value
    .filter(({ words, text }) =>
      !taken.includes(text) &&
      (words.startsWith(wanted) ||
        words.split(/[\s@._<-]+/).some((word) => word.startsWith(wanted)))
    )
    .slice(0, SHOWN_MAX).map(({ text }) => text);
}
