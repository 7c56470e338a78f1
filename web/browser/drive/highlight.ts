/**
 * Colours for code, coarse and quick: comments, strings, numbers and the words that most languages
 * share. It never fails; at worst a word is coloured that should not be.
 */

export type TokenKind = "comment" | "string" | "number" | "keyword" | "plain";

export interface Token {
  readonly kind: TokenKind;
  readonly text: string;
}

const WORDS = new Set(
  ("abstract and as async await bool boolean break case catch char class const continue def default " +
    "del delete do double elif else end enum export extends false final finally float fn for from " +
    "func function if impl implements import in int interface is lambda let loop match mod module mut " +
    "namespace new nil none not null number or package pass private protected public pub raise readonly " +
    "return self static string struct super switch this throw trait true try type typeof undefined use " +
    "using var void where while with yield None True False").split(" "),
);

const HASH_COMMENTS = /\.(py|sh|rb|toml|ya?ml|pl|conf|ini|mk)$|^(Makefile|Dockerfile)$/i;
const NO_CODE = /\.(txt|md|csv|log|eml|ics|vcf)$/i;

/** Null for what is plain text. */
export function highlight(name: string, source: string): Token[] | null {
  if (NO_CODE.test(name) || !name.includes(".")) return null;
  const comment = HASH_COMMENTS.test(name)
    ? "#[^\\n]*"
    : "//[^\\n]*|/\\*[\\s\\S]*?(?:\\*/|$)|<!--[\\s\\S]*?(?:-->|$)";
  const pattern = new RegExp(
    `(${comment})|("(?:[^"\\\\\\n]|\\\\.)*"?|'(?:[^'\\\\\\n]|\\\\.)*'?|\`(?:[^\`\\\\]|\\\\[\\s\\S])*\`?)` +
      `|\\b(\\d[\\w.]*)|([A-Za-z_]\\w*)`,
    "g",
  );
  const tokens: Token[] = [];
  let at = 0;
  const push = (kind: TokenKind, text: string) => {
    const last = tokens.at(-1);
    if (last?.kind === kind) tokens[tokens.length - 1] = { kind, text: last.text + text };
    else tokens.push({ kind, text });
  };
  for (const match of source.matchAll(pattern)) {
    if (match.index > at) push("plain", source.slice(at, match.index));
    const [text, inComment, inString, number] = match;
    if (inComment !== undefined) push("comment", text);
    else if (inString !== undefined) push("string", text);
    else if (number !== undefined) push("number", text);
    else push(WORDS.has(text) ? "keyword" : "plain", text);
    at = match.index + text.length;
  }
  if (at < source.length) push("plain", source.slice(at));
  return tokens;
}
