/**
 * etcd over gRPC. Requests go to the first port given, the leader's; when that connection ends, to the
 * next, as etcd's own clients do, if the caller wants calls repeated.
 *
 * Field numbers are those of etcd's rpc.proto.
 */
import { GrpcConnection } from "./grpc_connection.ts";
import { encodeProto, type ProtoField, readProto } from "./protobuf.ts";
import type { StoreClient } from "./store_client.ts";

const PUT = "/etcdserverpb.KV/Put";
const RANGE = "/etcdserverpb.KV/Range";
const TXN = "/etcdserverpb.KV/Txn";
/** "\0" as the end of a range means: no end. */
const NO_END = "\0";
const RETRY_PAUSE_MS = 5;
/**
 * A member that passed a request on to a leader that died answers only after seven seconds; whoever
 * asks again sooner is served as soon as there is a leader.
 */
const ATTEMPT_MS = 250;

/** @param retryMs how long a call is asked again, at the next member, after it failed; default: not */
export async function connectEtcd(
  ports: readonly number[],
  { retryMs = 0 }: { readonly retryMs?: number } = {},
): Promise<StoreClient> {
  let turn = 0, connection = await GrpcConnection.connect(ports[0]!);
  const call = async (path: string, message: Uint8Array) => {
    const untilMs = performance.now() + retryMs;
    for (;;) {
      const asked = connection;
      try {
        return await within(asked.call(path, message), retryMs === 0 ? null : ATTEMPT_MS);
      } catch (error) {
        if (performance.now() >= untilMs) throw error;
        if (error instanceof NoAnswerError) continue;
        await pause(RETRY_PAUSE_MS);
        // Only the first of those who failed looks for another member.
        if (asked !== connection) continue;
        turn += 1;
        asked.close();
        connection = await GrpcConnection.connect(ports[turn % ports.length]!).catch(() => asked);
      }
    }
  };
  return etcdClient(call, () => connection.close());
}

class NoAnswerError extends Error {}

async function within<T>(answer: Promise<T>, ms: number | null): Promise<T> {
  if (ms === null) return await answer;
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new NoAnswerError(`No answer within ${ms} ms`)), ms);
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The client over anything that carries calls. */
export function etcdClient(
  call: (path: string, message: Uint8Array) => Promise<Uint8Array>,
  close: () => void,
): StoreClient {
  /** The revision at which this client last wrote a key. */
  const revisions = new Map<string, number>();
  return {
    async put(key, value) {
      await call(PUT, putRequest(key, value));
    },
    async get(key) {
      const [kv] = keyValues(await call(RANGE, encodeProto([[1, key]])));
      return kv === undefined ? null : kv.valueBytes;
    },
    async compareAndPut(key, value) {
      const revision = revisions.get(key) ?? 0;
      const answer = readTxn(await call(TXN, compareRequest(key, revision, value)));
      if (!answer.succeeded) throw new Error(`Somebody else wrote "${key}"`);
      revisions.set(key, answer.revision);
    },
    async scan(start, limit) {
      const request: ProtoField[] = [[1, start], [2, NO_END], [3, limit]];
      return keyValues(await call(RANGE, encodeProto(request))).length;
    },
    close,
  };
}

function putRequest(key: string, value: Uint8Array): Uint8Array {
  return encodeProto([[1, key], [2, value]]);
}

/** TxnRequest: 1 = compares, 2 = what is done if all of them hold. */
function compareRequest(key: string, revision: number, value: Uint8Array): Uint8Array {
  // Compare: 2 = target (2 is the revision of the last write), 3 = key, 6 = that revision;
  // the result asked for, 1, is "equal" by default.
  const compare: ProtoField[] = [[2, 2], [3, key], [6, revision]];
  const requestOp = encodeProto([[2, putRequest(key, value)]]);
  return encodeProto([[1, encodeProto(compare)], [2, requestOp]]);
}

function readTxn(answer: Uint8Array): { succeeded: boolean; revision: number } {
  let succeeded = false, revision = 0;
  readProto(answer, (field, value) => {
    if (field === 2) succeeded = value === 1;
    if (field !== 1 || typeof value === "number") return;
    readProto(value, (headerField, revisionValue) => {
      if (headerField === 3 && typeof revisionValue === "number") revision = revisionValue;
    });
  });
  return { succeeded, revision };
}

/** RangeResponse: 2 = a key with its value, once for each. */
function keyValues(answer: Uint8Array): { valueBytes: number }[] {
  const found: { valueBytes: number }[] = [];
  readProto(answer, (field, kv) => {
    if (field !== 2 || typeof kv === "number") return;
    let valueBytes = 0;
    readProto(kv, (kvField, value) => {
      if (kvField === 5 && typeof value !== "number") valueBytes = value.length;
    });
    found.push({ valueBytes });
  });
  return found;
}
