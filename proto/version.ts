/**
 * The version of everything in `proto/`. Two nodes talk only when theirs are equal: the handshake
 * (hello.ts) compares them before anything else is said.
 *
 * Raise it with every change that an older node would misread, and add a line of history:
 *
 *     1  the first wire: newline JSON with raw bytes, HMAC handshake
 */
export const PROTOCOL_VERSION = 1;
