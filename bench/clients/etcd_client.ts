/**
 * etcd over gRPC. Requests go to the first port given, the leader's; when that connection ends, to the
 * next, as etcd's own clients do.
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

export async function connectEtcd(ports: readonly number[]): Promise<StoreClient> {
  const connection = await GrpcConnection.connect(ports[0]!);
  return etcdClient((path, message) => connection.call(path, message), () => connection.close());
}

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
