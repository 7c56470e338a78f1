/**
 * JSON that is put together byte by byte in one buffer, over and over: on the way of every write, so
 * that no strings are made that are thrown away at once.
 */

const FIRST_BYTES = 16 * 1024;
const QUOTE = 0x22, BACKSLASH = 0x5c, ZERO = 0x30;
/** Bytes that one UTF-16 unit takes at most, as JSON: a control character as six. */
const UNIT_BYTES_MAX = 6;
const DIGITS_MAX = 16;
const encoder = new TextEncoder();

export class TextBuffer {
  #bytes = new Uint8Array(FIRST_BYTES);
  #length = 0;

  clear(): void {
    this.#length = 0;
    if (this.#bytes.length > FIRST_BYTES) this.#bytes = new Uint8Array(FIRST_BYTES);
  }

  /** What is there now; valid until the next call of anything. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  get length(): number {
    return this.#length;
  }

  /** @param text of ASCII alone, as it is to be */
  add(text: string): this {
    this.#reserve(text.length);
    const bytes = this.#bytes;
    let at = this.#length;
    for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i);
    this.#length = at;
    return this;
  }

  /** As a string of JSON. */
  addString(text: string): this {
    this.#reserve(text.length * UNIT_BYTES_MAX + 2);
    const bytes = this.#bytes;
    let at = this.#length;
    bytes[at++] = QUOTE;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      const isPlain = unit >= 0x20 && unit <= 0x7e && unit !== QUOTE && unit !== BACKSLASH;
      if (!isPlain) return this.#addEscaped(text);
      bytes[at++] = unit;
    }
    bytes[at++] = QUOTE;
    this.#length = at;
    return this;
  }

  /** @param number a whole one, as JSON.stringify() would write it */
  addNumber(number: number): this {
    if (!Number.isSafeInteger(number) || number < 0) return this.add(String(number));
    this.#reserve(DIGITS_MAX);
    let digits = 1;
    for (let power = 10; digits < DIGITS_MAX && number >= power; power *= 10) digits += 1;
    const end = this.#length + digits;
    for (let at = end - 1, rest = number; at >= this.#length; at--) {
      const next = Math.floor(rest / 10);
      this.#bytes[at] = ZERO + (rest - next * 10);
      rest = next;
    }
    this.#length = end;
    return this;
  }

  #addEscaped(text: string): this {
    const rest = this.#bytes.subarray(this.#length);
    this.#length += encoder.encodeInto(JSON.stringify(text), rest).written;
    return this;
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length + bytes));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}
