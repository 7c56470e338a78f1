/** The bytes that the bench's own clients of Redis and etcd write and read. */
import assert from "node:assert/strict";
import { encodeProto, readProto } from "../../bench/clients/protobuf.ts";
import { etcdClient } from "../../bench/clients/etcd_client.ts";
import { encodeCommand, joinSmall, RespParser } from "../../bench/clients/resp_connection.ts";

const text = (parts: readonly Uint8Array[]) =>
  parts.map((part) => new TextDecoder().decode(part)).join("");
const bytes = (value: string) => new TextEncoder().encode(value);

Deno.test("a command of Redis is an array of strings, each with its length in bytes", () => {
  const value = bytes("v\r\n");
  assert.equal(
    text(encodeCommand(["SET", "ä", value])),
    "*3\r\n$3\r\nSET\r\n$2\r\nä\r\n$3\r\nv\r\n\r\n",
  );
  assert.equal(
    text(encodeCommand(["WAIT", "2", "10"])),
    "*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$2\r\n10\r\n",
  );
});

Deno.test("answers of Redis are found however the stream is cut", () => {
  const stream = bytes(
    "+OK\r\n:2\r\n$5\r\nv\r\n$9\r\n$-1\r\n*2\r\n$1\r\nx\r\n*1\r\n:7\r\n-ERR no\r\n*0\r\n",
  );
  const expected = ["OK", 2, 5, null, [1, [7]], "Error: Redis answered: ERR no", []];
  for (let cut = 1; cut <= stream.length; cut++) {
    const parser = new RespParser(), found: unknown[] = [];
    for (let at = 0; at < stream.length; at += cut) {
      parser.push(stream.subarray(at, at + cut));
      for (let answer; (answer = parser.next()) !== undefined;) {
        found.push(answer instanceof Error ? String(answer) : answer);
      }
    }
    assert.deepEqual(found, expected, `in pieces of ${cut}`);
  }
});

Deno.test("small pieces become one write, large ones are not copied", () => {
  const large = new Uint8Array(20_000);
  const joined = joinSmall([bytes("a"), bytes("b"), large, bytes("c")]);
  assert.deepEqual(joined.map(({ length }) => length), [2, 20_000, 1]);
  assert.equal(joined[1], large);
});

Deno.test("protobuf: fields are written as the format says, and read back", () => {
  assert.deepEqual(
    encodeProto([[1, "ab"], [3, 300], [16, new Uint8Array([7])]]),
    new Uint8Array([0x0a, 2, 0x61, 0x62, 0x18, 0xac, 0x02, 0x82, 0x01, 1, 7]),
  );
  const big = 2 ** 52 + 1, found: unknown[] = [];
  readProto(encodeProto([[2, big], [5, new Uint8Array(200)]]), (number, value) => {
    found.push([number, typeof value === "number" ? value : value.length]);
  });
  assert.deepEqual(found, [[2, big], [5, 200]]);
  assert.throws(() => readProto(new Uint8Array([0x08, 0x80]), () => {}), /cut short/);
});

Deno.test("etcd: a compare-and-put names the revision of this client's last write", async () => {
  const requests: number[][] = [];
  const header = (revision: number) => encodeProto([[1, 9], [3, revision]]);
  let revision = 40;
  const client = etcdClient((path, message) => {
    assert.equal(path, "/etcdserverpb.KV/Txn");
    readProto(message, (field, compare) => {
      if (field !== 1) return;
      const numbers: number[] = [];
      readProto(compare as Uint8Array, (_, value) => {
        if (typeof value === "number") numbers.push(value);
      });
      requests.push(numbers);
    });
    revision += 1;
    return Promise.resolve(encodeProto([[1, header(revision)], [2, revision < 43 ? 1 : 0]]));
  }, () => {});
  await client.compareAndPut("k", bytes("1"));
  await client.compareAndPut("k", bytes("2"));
  assert.deepEqual(requests, [[2, 0], [2, 41]]);
  await assert.rejects(client.compareAndPut("k", bytes("3")), /Somebody else wrote/);
});
